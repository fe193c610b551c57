"""``python -m benchmarks.decode``: from a file's bytes to the model's input, format by format.

For each format the same 12-megapixel synthetic mammogram is read by three kinds of sides:

- ``Mammoseq``: ``decode_reduced`` and ``preprocess_reduced``, as in the service; the first also
  alone;
- ``pydicom``: ``dcmread``, ``pixel_array`` with the plugins that pydicom picks by itself,
  ``apply_voi_lut``, and then our ``preprocess``;
- codecs alone (``benchmarks.codecs``), as many as are installed: file or frame to pixels, nothing
  else. What is not installed is named; what answers with other pixels is marked.

In each round every side reads the file once on one thread, then twice on two threads at once; the
order of the sides is turned round by one place from round to round. Figures are medians over the
rounds. ``gain`` is how much more two threads read than one: 2 for a codec that releases the GIL on
two free cores, 1 for one that holds it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_voi_lut

from app.bundle import find_bundle, load_bundle
from app.imaging.decode import decode_reduced
from app.imaging.preprocess import InputGeometry, preprocess
from app.imaging.reduced import preprocess_reduced
from app.machine import available_cores
from app.settings import Settings
from benchmarks.codecs import codecs_for
from benchmarks.inputs import Picture, pictures

OURS, OURS_DECODE, PYDICOM = "Mammoseq", "Mammoseq, decode", "pydicom"
JPEG_2000_TARGET = 15.0  # times as fast as pydicom, from bytes to the model's input
_ROWS, _COLUMNS = 4096, 3072
_MAX_SECONDS, _MIN_ROUNDS = 30.0, 3  # of one format: a slow one has fewer rounds
_LOSSY = 0.02  # of the range: farther from the original, on the mean, a lossy codec is wrong

Work = Callable[[], Any]


@dataclass(frozen=True)
class Side:
    """``one`` are milliseconds per file on one thread, ``two`` per pair of files on two."""

    name: str
    note: str
    work: Work
    one: list[float] = field(default_factory=list)
    two: list[float] = field(default_factory=list)

    @property
    def gain(self) -> float:
        return median(2 * a / b for a, b in zip(self.one, self.two, strict=True))


@dataclass(frozen=True)
class Case:
    """A format, the sides that read it, and those that could not."""

    name: str
    size: int
    sides: list[Side]
    absent: list[str]

    def milliseconds(self, name: str) -> float | None:
        return next((median(side.one) for side in self.sides if side.name == name), None)

    @property
    def times_pydicom(self) -> float | None:
        """How many times as fast as pydicom we are, from bytes to the model's input."""
        ours, theirs = self.milliseconds(OURS), self.milliseconds(PYDICOM)
        return theirs / ours if ours and theirs else None

    @property
    def best_codec(self) -> Side | None:
        codecs = [
            s for s in self.sides if s.name not in (OURS, OURS_DECODE, PYDICOM) and not s.note
        ]
        return min(codecs, key=lambda side: median(side.one), default=None)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    cv2.setNumThreads(1)  # as the service does
    settings = Settings()
    manifest = load_bundle(find_bundle(settings.model_store, settings.model)).manifest
    size = InputGeometry(manifest.input.height, manifest.input.width)
    print(
        f"{options.rows} x {options.columns} pixels, {available_cores()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}; {options.rounds} rounds"
    )
    cases = []
    with ThreadPoolExecutor(2) as pool:
        for picture in pictures(options.rows, options.columns, options.only):
            case = _prepared(picture, size, settings.max_pixels)
            _take_turns(case, pool, options.rounds)
            _print(case)
            cases.append(case)
    _print_summary(cases)
    if options.json:
        options.json.write_text(json.dumps(_report(cases, options), indent=1) + "\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--rows", type=int, default=_ROWS)
    parser.add_argument("--columns", type=int, default=_COLUMNS)
    parser.add_argument("--only", metavar="PART", default="", help="of a format's name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be positive")
    return options


def _prepared(picture: Picture, size: InputGeometry, max_pixels: int) -> Case:
    """The sides that can read the picture, each tried once."""

    def ours() -> NDArray[Any]:
        return preprocess_reduced(decode_reduced(picture.file, max_pixels, size), size).tensor

    def ours_decoded() -> NDArray[Any]:
        return decode_reduced(picture.file, max_pixels, size).pixels

    def theirs() -> NDArray[Any]:
        dataset = pydicom.dcmread(BytesIO(picture.file))
        return preprocess(apply_voi_lut(dataset.pixel_array, dataset), size).tensor

    case = Case(picture.name, len(picture.file), [Side(OURS, "", ours)], [])
    case.sides.append(Side(OURS_DECODE, "", ours_decoded))
    if picture.is_dicom:
        _add(case, PYDICOM, theirs, lambda tensor: "")
    for codec in codecs_for(picture):
        if not codec.installed:
            case.absent.append(f"{codec.name}: not installed")
            continue
        decode_once = codec.decode
        _add(case, codec.name, lambda d=decode_once: d(picture), lambda p: _fault(p, picture))  # type: ignore[misc]
    return case


def _add(case: Case, name: str, work: Work, fault: Callable[[Any], str]) -> None:
    try:
        note = fault(work())
    except Exception as error:  # whatever a codec raises for what it does not read
        case.absent.append(f"{name}: cannot ({type(error).__name__})")
    else:
        case.sides.append(Side(name, note, work))


def _fault(found: Any, picture: Picture) -> str:
    """What is wrong with a codec's answer; empty if nothing is."""
    wanted = picture.pixels
    found = found[0] if isinstance(found, tuple) else found  # pixels and what is known of them
    if isinstance(found, bytes | bytearray):
        found = np.frombuffer(found, wanted.dtype)
    pixels = np.asarray(found)
    if pixels.nbytes == wanted.nbytes:
        pixels = pixels.view(wanted.dtype)
    if pixels.size != wanted.size:
        pixels = pixels.reshape(*wanted.shape, -1)[..., 0]
    difference = np.abs(pixels.reshape(wanted.shape).astype(np.float32) - wanted).mean()
    limit = _LOSSY * float(wanted.max()) if "JPEG" in picture.coding else 0.0
    return "" if difference <= limit else "other pixels"


def _take_turns(case: Case, pool: ThreadPoolExecutor, rounds: int) -> None:
    start = time.perf_counter()
    for number in range(rounds):
        if number >= _MIN_ROUNDS and time.perf_counter() - start > _MAX_SECONDS:
            return
        first = number % len(case.sides)
        for side in case.sides[first:] + case.sides[:first]:
            side.one.append(_milliseconds(side.work))
            side.two.append(_milliseconds(lambda work=side.work: _twice(work, pool)))  # type: ignore[misc]


def _twice(work: Work, pool: ThreadPoolExecutor) -> None:
    for done in [pool.submit(work) for _ in range(2)]:
        done.result()


def _milliseconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def _print(case: Case) -> None:
    print(f"\n{case.name}, {case.size / 1e6:.1f} MB, {len(case.sides[0].one)} rounds")
    print(f"{'':<4}{'side':<36}{'ms':>9}{'least':>9}{'two threads: ms':>17}{'gain':>7}")
    for side in case.sides:
        print(
            f"{'':<4}{side.name:<36}{median(side.one):>9.1f}{min(side.one):>9.1f}"
            f"{median(side.two):>17.1f}{side.gain:>7.2f}  {side.note}".rstrip(),
            flush=True,
        )
    for line in case.absent:
        print(f"{'':<4}{line}")


def _print_summary(cases: Sequence[Case]) -> None:
    print(
        f"\n{'format':<24}{'Mammoseq ms':>12}{'x pydicom':>11}{'decode alone ms':>17}"
        f"{'best codec alone':>34}{'ratio':>7}"
    )
    for case in cases:
        ours, alone = case.milliseconds(OURS), case.milliseconds(OURS_DECODE)
        assert ours is not None
        assert alone is not None
        times, best = case.times_pydicom, case.best_codec
        codec = f"{best.name} {median(best.one):.1f}" if best else "-"
        ratio = f"{alone / median(best.one):.2f}" if best else "-"
        print(
            f"{case.name:<24}{ours:>12.1f}{f'{times:.1f}' if times else '-':>11}{alone:>17.1f}"
            f"{codec:>34}{ratio:>7}"
        )
    for case in cases:
        if case.name == "DICOM JPEG 2000" and case.times_pydicom:
            print(
                f"\nJPEG 2000 lossless DICOM to model input: {case.times_pydicom:.1f} times as "
                f"fast as pydicom (target >= {JPEG_2000_TARGET:.0f})"
            )


def _report(cases: Sequence[Case], options: argparse.Namespace) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": available_cores(),
        "rows": options.rows,
        "columns": options.columns,
        "cases": [
            {
                "format": case.name,
                "bytes": case.size,
                "times_pydicom": case.times_pydicom,
                "best_codec": case.best_codec and case.best_codec.name,
                "absent": case.absent,
                "sides": {
                    side.name: {
                        "ms": median(side.one),
                        "ms_by_round": side.one,
                        "two_threads_ms": median(side.two),
                        "gain": side.gain,
                        "note": side.note,
                    }
                    for side in case.sides
                },
            }
            for case in cases
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
