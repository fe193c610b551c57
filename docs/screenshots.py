"""``python -m docs.screenshots``: the pictures of the page in ``docs/images``, taken in Chromium
from the service as it is, with the example series and a CBIS-DDSM film (CC BY 3.0)."""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.service import running_service

_IMAGES = Path(__file__).parent / "images"
_FILM = Path("examples/mammogram.dcm")
_DESKTOP, _PHONE = (1440, 900), (390, 844)


def main() -> int:
    with (
        running_service(Path("model_store")) as service,
        running_service(Path("model_store"), settings={"MAMMOSEQ_ACCESS": "login"}) as guarded,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        here = f"http://127.0.0.1:{service.port}/"
        page = _opened(browser, here)
        _read_example(page)
        _save(page, "page-series")
        page.goto(f"{here}#model")
        page.wait_for_selector(".about svg")
        _save(page, "page-model")
        page = _opened(browser, here, theme="light")
        page.locator("#files").set_input_files(_FILM)
        _read(page)
        _save(page, "page-film-light")
        page = _opened(browser, here, _PHONE)
        _read_example(page)
        heading = page.locator(".reading h2")  # not under what the page is not for
        heading.evaluate("node => scrollBy(0, node.getBoundingClientRect().top - 64)")
        _save(page, "page-phone")
        page = _opened(browser, f"http://127.0.0.1:{guarded.port}/")
        page.wait_for_selector(".login-form")
        _save(page, "page-login")
        browser.close()
    return 0


def _opened(
    browser: Browser, address: str, size: tuple[int, int] = _DESKTOP, theme: str = "dark"
) -> Page:
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height})
    context.add_init_script(f"localStorage.setItem('mammoseq-theme', '{theme}')")
    page = context.new_page()
    page.goto(address)
    return page


def _read_example(page: Page) -> None:
    page.locator(".drop .link").click()
    _read(page)


def _read(page: Page) -> None:
    page.wait_for_selector("button.go:enabled")
    page.locator("button.go").click()
    page.wait_for_selector(".reading h2")
    page.wait_for_selector(".frame-state", state="detached")


def _save(page: Page, name: str) -> None:
    page.wait_for_timeout(300)  # fonts and the last frame
    page.screenshot(path=_IMAGES / f"{name}.jpg", type="jpeg", quality=88)


if __name__ == "__main__":
    sys.exit(main())
