"""A real browser, and the files of the page on a loopback address with the page's policy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.api.protect import HEADERS
from tests.page.browser import launch

HERE = Path(__file__).parent
WITHIN_MILLISECONDS = 30_000  # what is expected on a machine that does other things, too
FOLDERS = {"web": HERE.parents[1] / "app" / "web", "test": HERE}


class Site(ThreadingHTTPServer):
    """Serves ``/web/`` from the page's files, ``/test/`` from here, and ``bodies`` by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: dict[str, bytes] = {}
        self.address = f"http://127.0.0.1:{self.server_port}"

    def put(self, path: str, body: bytes) -> str:
        self.bodies[path] = body
        return path


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        body = self.server.bodies.get(path)
        if body is None:
            _, folder, name = path.split("/", 2) if path.count("/") > 1 else ("", "", "")
            file = FOLDERS[folder] / name if folder in FOLDERS else HERE / "missing"
            if not file.is_file():
                self.send_error(404)
                return
            body = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", guess_type(path)[0] or "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", HEADERS["Content-Security-Policy"])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        expect.set_options(timeout=WITHIN_MILLISECONDS)
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with empty_tab(browser, site) as tab:
        yield tab


@contextmanager
def empty_tab(browser: Browser, site: Site) -> Iterator[Page]:
    """What breaks on its console breaks the test, also what the policy forbids."""
    faults: list[str] = []
    context = browser.new_context(viewport={"width": 1200, "height": 900}, base_url=site.address)
    tab = context.new_page()
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    yield tab
    context.close()
    assert faults == []
