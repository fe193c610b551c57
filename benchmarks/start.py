"""``python -m benchmarks.start``: from the start of the process to the first 200 of
``/healthz/ready``, asked every 10 ms.

The service is started and stopped so many times, one after the other; there is nothing to take
turns with, so the median and the worst stand beside the target. Its parts are told from when it
prints its settings (the interpreter and all imports are done) and its model (bundle verified,
sessions made and warm). ``--imports`` prints the ten packages that take longest to import.
"""

from __future__ import annotations

import argparse
import http.client
import json
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from app.machine import available_cores
from app.settings import Settings
from benchmarks.service import ServiceError, environment, free_port

TARGET_SECONDS = 1.5
_POLL_SECONDS = 0.01
_READY_SECONDS = 60.0
_PARTS = {
    "imported": "interpreter and imports",
    "model": "bundle verified, sessions warm",
    "ready": "routes, server, first answer",
}


@dataclass(frozen=True)
class Start:
    """Seconds since the start of the process at which each part was over."""

    imported: float
    model: float
    ready: float

    @property
    def parts(self) -> dict[str, float]:
        return {
            "imported": self.imported,
            "model": self.model - self.imported,
            "ready": self.ready - self.model,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    print(
        f"{platform.machine()}, {available_cores()} cores, Python {platform.python_version()}; "
        f"{options.starts} starts"
    )
    try:
        starts = [_start(options.model_store) for _ in range(options.starts)]
    except (ServiceError, OSError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    _print(starts)
    if options.imports:
        _print_imports()
    if options.json:
        report = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": available_cores(),
            "starts_seconds": [asdict(start) for start in starts],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start")
    parser.add_argument("--starts", type=int, default=7, help="how often (default 7)")
    parser.add_argument("--imports", action="store_true", help="also what is imported longest")
    parser.add_argument(
        "--model-store", type=Path, default=Settings().model_store, help="folder of model bundles"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    options = parser.parse_args(arguments)
    if options.starts < 1:
        parser.error("--starts must be positive")
    return options


def _start(model_store: Path) -> Start:
    """Start the service once, wait until it is ready, stop it. Raises ``ServiceError``."""
    port = free_port()
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "app"],
        env=environment(model_store, port),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        printed: dict[str, float] = {}

        def listen() -> None:
            assert process.stdout
            for line in process.stdout:
                printed.setdefault(line.partition(" ")[0], time.perf_counter() - begin)

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.perf_counter() - begin > _READY_SECONDS:
                    raise ServiceError("the service did not become ready")
                time.sleep(_POLL_SECONDS)
            ready = time.perf_counter() - begin
        finally:
            process.terminate()
            process.wait()
            listener.join()
    return Start(printed["settings"], printed["model"], ready)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False  # not listening yet
    finally:
        connection.close()


def _print(starts: Sequence[Start]) -> None:
    print(f"{'':<34}{'median s':>10}{'worst':>8}")
    for part, meaning in _PARTS.items():
        seconds = [start.parts[part] for start in starts]
        print(f"{meaning:<34}{median(seconds):>10.2f}{max(seconds):>8.2f}")
    ready = [start.ready for start in starts]
    print(
        f"{'start to ready':<34}{median(ready):>10.2f}{max(ready):>8.2f}"
        f"  (target <= {TARGET_SECONDS} s)"
    )


def _print_imports() -> None:
    """Of each package its own seconds: what its modules take without what they import elsewhere."""
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import app.__main__"],
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    own: dict[str, int] = {}
    for microseconds, name in re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", told, re.M):
        package = name.partition(".")[0]
        own[package] = own.get(package, 0) + int(microseconds)
    print(f"\nimports: {sum(own.values()) / 1e6:.2f} s with the tracing that times them; longest")
    for package in sorted(own, key=lambda name: -own[name])[:10]:
        print(f"  {package:<32}{own[package] / 1e6:>10.3f}")


if __name__ == "__main__":
    sys.exit(main())
