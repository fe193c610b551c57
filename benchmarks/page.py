"""``python -m benchmarks.page``: from the click on *Read* to the picture and its result on the
screen, beside the service's own answer to the same file.

Real Chromium without a GPU (``/usr/bin/chromium``, or ``--chromium``) on the real service, both on
this machine: the picture is decoded at its full size, sent to the page, and drawn; while that takes
long, the page shows a coarser one. The two sides
take turns; medians. It also prints what the first paint transfers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

from app.machine import available_cores
from benchmarks.inputs import files_of_every_format
from benchmarks.service import Service, ServiceError, running_service

TARGET_SECONDS = 2.0
_FILES = ("dicom-1280", "dicom-12mp", "jpeg2000-12mp")
_FIRST_PAINT = (
    "[...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')]"
    ".reduce((sum, entry) => sum + entry.transferSize, 0)"
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    files = files_of_every_format()
    try:
        with (
            running_service(options.model_store, settings={"MAMMOSEQ_GATE": "warn"}) as service,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(
                executable_path=str(options.chromium),
                args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
            )
            print(f"Chromium {browser.version}, {available_cores()} cores; {options.rounds} rounds")
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            _open(page, service)
            print(f"first paint transfers {page.evaluate(_FIRST_PAINT) / 1000:.0f} kB (target 100)")
            for name in _FILES:
                _compare(page, service, name, files[name], options.rounds)
            browser.close()
    except ServiceError as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    return 0


def _compare(page: Page, service: Service, name: str, data: bytes, rounds: int) -> None:
    alone, shown, whole = [], [], []
    for _ in range(rounds):
        alone.append(_answered(service, data))
        seen, complete = _shown(page, service, data)
        shown.append(seen)
        whole.append(complete)
    beyond = median(shown) - median(alone)
    print(
        f"{name:14} service {median(alone):.3f} s, on the screen {median(shown):.3f} s: "
        f"{beyond:.3f} s beyond (target {TARGET_SECONDS}); all its pixels {median(whole):.3f} s"
    )


def _answered(service: Service, data: bytes) -> float:
    start = time.perf_counter()
    status, _ = service.fetch("POST", "/predict?overlay=none", data)
    if status != 200:
        raise ServiceError(f"answered {status}")
    return time.perf_counter() - start


def _shown(page: Page, service: Service, data: bytes) -> tuple[float, float]:
    """Seconds until the picture is seen with its result, and until it has all its pixels."""
    _open(page, service)
    page.locator("#files").set_input_files(
        {"name": "film", "mimeType": "application/octet-stream", "buffer": data}
    )
    page.wait_for_selector("button.go:enabled")
    start = time.perf_counter()
    page.locator("button.go").click()
    page.wait_for_selector(".reading h2")
    page.wait_for_selector(".frame-state:not(.is-coarse)", state="detached")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    seen = time.perf_counter() - start
    page.wait_for_selector(".frame-state", state="detached")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    return seen, time.perf_counter() - start


def _open(page: Page, service: Service) -> None:
    page.goto(f"http://127.0.0.1:{service.port}/")
    page.wait_for_selector(".drop")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    parser.add_argument("--chromium", type=Path, default=Path("/usr/bin/chromium"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
