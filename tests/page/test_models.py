"""The page where several models serve: what it shows and saves is of the one that answered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, expect

from app.bundle import Bundle
from tests.page.browser import opened
from tests.page.test_reading import choose, payload, read
from tests.pictures import breast, png
from tests.serving import Service, serving
from tests.stores import put_version

DEFAULT, CANARY, LATER = "1.0.0", "2.0.0", "3.0.0"
SECONDS = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def service(bundle: Bundle, store: Path) -> Iterator[Service]:
    """All that names no model is answered by the canary."""
    name = bundle.manifest.name
    folder = put_version(bundle, store, DEFAULT)
    put_version(bundle, store, CANARY, temperature=3.0)
    with serving(
        folder, store, model=f"{name}/{DEFAULT}", canary=name, canary_share=1, store_seconds=0.5
    ) as service:
        yield service


def test_figures_and_files_are_of_the_model_that_answered(
    browser: Browser, service: Service, bundle: Bundle, store: Path
) -> None:
    name = bundle.manifest.name
    with opened(browser, str(service.client.base_url)) as page:
        choose(page, payload("a.png", png(breast())))
        with page.expect_request(f"**/v1/models/{name}/{CANARY}/figures"):
            read(page)
        expect(page.locator(".side")).to_contain_text(f"{name} {CANARY}")
        with page.expect_request("**/predict?*") as asked, page.expect_download():
            page.locator("[data-form=json]").click()
        assert parse_qs(urlsplit(asked.value.url).query)["model"] == [f"{name}/{CANARY}"]

        # another takes its place: what is on the page can no longer be asked for, and says so
        put_version(bundle, store, LATER, temperature=5.0)
        deadline = time.monotonic() + SECONDS
        while service.get("/v1/models").json()["models"][-1]["version"] != LATER:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        page.locator("[data-form=json]").click()
        expect(page.locator(".side")).to_contain_text("no longer in service", timeout=20_000)
        with page.expect_request(f"**/v1/models/{name}/{LATER}/figures"):
            page.locator("button.go").click()
        expect(page.locator(".side")).to_contain_text(f"{name} {LATER}", timeout=20_000)
