"""What the page says of a login elsewhere, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from app.access.passwords import hashed
from tests.page.browser import opened
from tests.serving import Service, serving


@pytest.fixture(scope="module")
def guarded(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("guarded")
    with serving(bundle_folder, folder, users=f"ana:{hashed('correct horse')}") as service:
        yield service


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("provider_unreachable", "does not answer"),
        ("Call%20555%20to%20go%20on", "does not understand"),
    ],
)
def test_only_what_the_service_may_say_of_a_login_is_shown(
    browser: Browser, guarded: Service, told: str, shown: str
) -> None:
    address = str(guarded.client.base_url)
    with opened(browser, address) as page:
        page.goto(f"{address}/?login={told}")
        expect(page.get_by_text(shown)).to_be_visible()
        assert "555" not in page.locator("body").inner_text()
        assert page.url == f"{address}/"  # and only once


def test_no_script_of_the_page_could_make_markup_of_text(
    browser: Browser, guarded: Service
) -> None:
    page = browser.new_page()
    page.goto(str(guarded.client.base_url))
    for attempt in (
        "document.body.innerHTML = '<p>'",
        "trustedTypes.createPolicy('any', { createHTML: (text) => text })",
    ):
        made = page.evaluate(
            f"() => {{ try {{ {attempt}; return true }} catch {{ return false }} }}"
        )
        assert made is False, attempt
    page.close()
