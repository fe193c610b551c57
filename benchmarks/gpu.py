"""``python -m benchmarks.gpu``: does the service keep a GPU busy, and can the CPU feed it?

- *bare loop*: ONNX Runtime with its own defaults and IO binding, one batch after the other, 32
  images each: with the images copied to the GPU and features and maps back, which any service has
  to do (the bar), and without copies (what the arithmetic alone takes);
- *encode*: what the service calls, ``Sessions.encode``, from one and from two threads;
- *CPU side*: ``decode`` and ``preprocess`` of every format on all cores at once, images a second;
- *service*: over HTTP, single JPEGs of 640 pixels, with pictures and without; closed loop.

``--half`` serves a copy of the bundle whose encoder is converted to float16 here: for speed only.
For use, export one that is measured (docs/variants.md). ``--device cpu`` proves that the script
runs where there is no GPU; its figures say nothing about one. Exit status 2 where CUDA is not
usable.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from app.bundle import (
    ENCODER,
    MANIFEST,
    MANIFEST_HASH,
    Bundle,
    BundleError,
    find_bundle,
    load_bundle,
    seal,
)
from app.imaging.decode import decode
from app.imaging.preprocess import InputGeometry, ModelInput, preprocess
from app.inference.sessions import DeviceError, GraphError, Sessions
from app.machine import available_cores
from app.settings import Settings
from benchmarks import openloop
from benchmarks.client import LoadError
from benchmarks.inputs import pictures, synthetic_files
from benchmarks.measured import process_cpu_seconds
from benchmarks.service import Service, ServiceError, running_service

TARGET = 0.90  # of the bare loop
_OUTPUTS = ("maps", "pooled")
_PATHS = {"heatmap": "/predict", "no heatmap": "/predict?overlay=none&map=false"}
_MAX_PIXELS = 50_000_000
_WARM_UP = 3  # batches


@dataclass(frozen=True)
class Served:
    """The service under a closed loop. ``refused`` requests were answered 429."""

    name: str
    concurrency: int
    images_per_second: float
    p50_ms: float
    p99_ms: float
    refused: int
    service_cores: float
    client_cores: float


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    cv2.setNumThreads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            store, bundle = _bundle(options, Path(folder))
            report = _measure(options, store, bundle)
    except DeviceError as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 2
    except (BundleError, GraphError, ServiceError, LoadError, OSError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", type=int, default=32, help="of the loops (default 32)")
    parser.add_argument("--half", action="store_true", help="serve a float16 copy of the bundle")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each part (default 5)")
    parser.add_argument(
        "--concurrency", type=int, nargs="+", default=[64, 128], help="(default 64 128)"
    )
    parser.add_argument(
        "--rows", type=int, default=4096, help="of the decoded files; 3/4 as many columns"
    )
    parser.add_argument(
        "--model-store", type=Path, default=Settings().model_store, help="folder of model bundles"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    options = parser.parse_args(arguments)
    if min(options.batch, options.rows, *options.concurrency) < 1 or options.seconds <= 0:
        parser.error("numbers must be positive")
    return options


def _bundle(options: argparse.Namespace, folder: Path) -> tuple[Path, Bundle]:
    """The store to serve from, and its bundle."""
    store: Path = options.model_store
    bundle = load_bundle(find_bundle(store, Settings().model))
    if not options.half or bundle.manifest.precision == "fp16":
        return store, bundle
    from export.half import halve  # needs onnx, which a machine that only serves does not have

    target = folder / bundle.manifest.name / bundle.manifest.version
    sealed = shutil.ignore_patterns(MANIFEST, MANIFEST_HASH)
    shutil.copytree(bundle.folder, target, ignore=sealed)
    (target / ENCODER).write_bytes(halve(bundle.encoder))
    return folder, seal(
        target, bundle.manifest.model_dump(exclude={"files"}) | {"precision": "fp16"}
    )


def _measure(options: argparse.Namespace, store: Path, bundle: Bundle) -> dict[str, object]:
    rates = _loops(options, bundle)
    bar = rates["bare loop with copies"]
    size = InputGeometry(bundle.manifest.input.height, bundle.manifest.input.width)
    feed = _cpu_side(options, size)
    limits = {
        "MAMMOSEQ_DEVICE": options.device,
        "MAMMOSEQ_MAX_REQUESTS": str(2 * max(options.concurrency)),
        "MAMMOSEQ_MAX_BATCH": str(options.batch),
    }
    with running_service(store, settings=limits) as service:
        served = [
            _serve(service, name, path, concurrency, options.seconds)
            for name, path in _PATHS.items()
            for concurrency in options.concurrency
        ]
    _print_summary(served, bar, feed["JPEG, 640 pixels"])
    return {
        "precision": bundle.manifest.precision,
        "device": options.device,
        "cores": available_cores(),
        "batch": options.batch,
        "images_per_second": rates,
        "cpu_side_images_per_second": feed,
        "service": [asdict(one) for one in served],
        "ratio": max(one.images_per_second for one in served) / bar,
    }


def _loops(options: argparse.Namespace, bundle: Bundle) -> dict[str, float]:
    """Images a second of the encoder by itself, bare and as the service calls it."""
    sessions = Sessions(bundle.encoder, bundle.head, device=options.device)
    manifest = bundle.manifest
    print(
        f"{manifest.name}/{manifest.version}, {manifest.precision}, on {sessions.provider}; "
        f"{platform.machine()}, {available_cores()} cores; batches of {options.batch}"
    )
    shape = (options.batch, manifest.input.height, manifest.input.width, 1)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    rates = bare_loops(bundle.encoder, images, options.device, options.seconds)
    for threads in (1, 2):
        rates[f"encode, threads: {threads}"] = _rate(
            lambda: sessions.encode(images), len(images), threads, options.seconds
        )
    for name, rate in rates.items():
        share = rate / rates["bare loop with copies"]
        print(f"{name:<26}{rate:>9.1f} images/s{share:>7.2f} of the bare loop with copies")
    return rates


def bare_loops(
    encoder: bytes, images: NDArray[np.float32], device: str, seconds: float
) -> dict[str, float]:
    """Images a second of ONNX Runtime alone, with its default options."""
    provider = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[device]
    session = ort.InferenceSession(encoder, providers=[provider])
    there = ort.OrtValue.ortvalue_from_numpy(images, device, 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("images", there)
    for name in _OUTPUTS:
        binding.bind_output(name, device, 0)

    def without_copies() -> None:
        session.run_with_iobinding(binding)

    def with_copies() -> None:
        there.update_inplace(images)
        session.run_with_iobinding(binding)
        binding.copy_outputs_to_cpu()

    return {
        "bare loop with copies": _rate(with_copies, len(images), 1, seconds),
        "bare loop without copies": _rate(without_copies, len(images), 1, seconds),
    }


def _rate(work: Callable[[], object], images: int, threads: int, seconds: float) -> float:
    """Images a second when ``threads`` threads repeat ``work``, which is worth ``images``."""
    for _ in range(_WARM_UP):
        work()
    start = time.perf_counter()
    deadline = start + seconds
    done = itertools.count()

    def repeat() -> None:
        while time.perf_counter() < deadline:
            work()
            next(done)

    workers = [threading.Thread(target=repeat) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return next(done) * images / (time.perf_counter() - start)


def _cpu_side(options: argparse.Namespace, size: InputGeometry) -> dict[str, float]:
    """Images a second that all cores decode and preprocess, by format."""
    cores = available_cores()
    columns = options.rows * 3 // 4
    files = {"JPEG, 640 pixels": synthetic_files(full_size=False)["jpeg-640"]}
    files |= {
        f"{picture.name}, {options.rows} x {columns}": picture.file
        for picture in pictures(options.rows, columns)
    }
    print(f"\n{'CPU side, all cores':<36}{'images/s':>10}{'a core':>9}")
    found: dict[str, float] = {}
    for name, data in files.items():
        work = partial(_prepare, data, size)
        found[name] = _rate(work, 1, cores, options.seconds / 2)
        print(f"{name:<36}{found[name]:>10.1f}{found[name] / cores:>9.1f}", flush=True)
    return found


def _prepare(data: bytes, size: InputGeometry) -> ModelInput:
    return preprocess(decode(data, _MAX_PIXELS)[0], size)


def _serve(service: Service, name: str, path: str, concurrency: int, seconds: float) -> Served:
    request = openloop.single(path, synthetic_files(full_size=False)["jpeg-640"], {})
    warm_until = time.perf_counter() + 1
    openloop.repeat(
        service.port, request, concurrency=concurrency,
        until=lambda: time.perf_counter() > warm_until,
    )  # fmt: skip
    cpu, client_cpu = process_cpu_seconds(service.pid), time.process_time()
    start = time.perf_counter()
    outcomes = openloop.repeat(
        service.port, request, concurrency=concurrency,
        until=lambda: time.perf_counter() > start + seconds,
    )  # fmt: skip
    wall = time.perf_counter() - start
    statuses = Counter(outcome.status for outcome in outcomes)
    if not statuses[200] or set(statuses) - {200, 429}:
        raise LoadError(f"requests by status: {dict(statuses)}")
    latencies = [1000 * (o.done - o.sent) for o in outcomes if o.status == 200]
    p50, p99 = (float(np.percentile(latencies, share)) for share in (50, 99))
    return Served(
        name, concurrency, statuses[200] / wall, p50, p99, statuses[429],
        (process_cpu_seconds(service.pid) - cpu) / wall,
        (time.process_time() - client_cpu) / wall,
    )  # fmt: skip


def _print_summary(served: Sequence[Served], bar: float, feed: float) -> None:
    print(
        f"\n{'service':<12}{'conc.':>6}{'images/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'refused':>9}"
        f"{'its cores':>11}{'client':>8}"
    )
    for one in served:
        print(
            f"{one.name:<12}{one.concurrency:>6}{one.images_per_second:>10.1f}{one.p50_ms:>9.1f}"
            f"{one.p99_ms:>9.1f}{one.refused:>9}{one.service_cores:>11.2f}{one.client_cores:>8.2f}"
        )
    best = max(served, key=lambda one: one.images_per_second)
    print(
        f"\nservice {best.images_per_second:.1f} images/s: {best.images_per_second / bar:.2f} of "
        f"the bare loop with copies (target >= {TARGET:.2f}), {best.images_per_second / feed:.2f} "
        f"of what all cores decode and preprocess of such files ({feed:.1f})"
    )
    if best.client_cores > 0.9:
        print("warning: the load generator, one thread, was the limit")


if __name__ == "__main__":
    sys.exit(main())
