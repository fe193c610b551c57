"""A session that ends while somebody is at work: nothing is lost, and nothing shown to others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.access.passwords import hashed
from tests.page.browser import barriers, opened
from tests.page.test_login import PASSWORD, choose, log_in
from tests.serving import Service, serving


@pytest.fixture(scope="module")
def guarded(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    users = f"ana:{hashed(PASSWORD)} ben:{hashed(PASSWORD)}"
    with serving(
        bundle_folder, tmp_path_factory.mktemp("guarded"), access="login", users=users
    ) as service:
        yield service


@pytest.fixture
def page(browser: Browser, guarded: Service) -> Iterator[Page]:
    with opened(browser, str(guarded.client.base_url)) as page:
        log_in(page)
        expect(page.locator(".user")).to_have_text("ana")
        yield page


def come_back(page: Page, user: str = "ana") -> None:
    again = page.get_by_role("dialog")
    expect(again).to_be_visible()
    log_in(page, user)
    expect(again).to_have_count(0)


def test_thumbnails_wait_for_the_next_login(page: Page) -> None:
    page.context.clear_cookies()
    choose(page)
    come_back(page)
    expect(page.locator("button.go")).to_be_enabled()


def test_pictures_wait_for_the_next_login(page: Page) -> None:
    choose(page)
    expect(page.locator("button.go")).to_be_enabled()
    page.route("**/pixels", lambda route: (page.context.clear_cookies(), route.fallback()), times=1)
    page.locator("button.go").click()
    come_back(page)
    expect(page.locator(".frame-state")).to_have_count(0)


def test_a_result_can_be_taken_away_after_the_next_login(page: Page) -> None:
    choose(page)
    page.locator("button.go").click()
    expect(page.locator(".reading h2")).to_be_visible()
    expect(page.locator(".frame-state")).to_have_count(0)
    page.context.clear_cookies()
    page.locator("[data-form=json]").click()
    come_back(page)
    with page.expect_download():
        page.locator("[data-form=json]").click()


def test_somebody_else_who_logs_in_finds_nothing(page: Page) -> None:
    choose(page)
    expect(page.locator("button.go")).to_be_enabled()
    page.context.clear_cookies()
    page.locator("button.go").click()
    come_back(page, "ben")
    expect(page.locator(".user")).to_have_text("ben")
    expect(page.locator(".images > li")).to_have_count(0)


def test_nobody_gets_around_the_login_nor_sees_what_is_behind_it(page: Page) -> None:
    choose(page)
    expect(page.locator("button.go")).to_be_enabled()
    page.context.clear_cookies()
    page.locator("button.go").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for _ in range(3):
        page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    assert barriers(page) == []
    behind = dialog.evaluate("node => getComputedStyle(node, '::backdrop').backgroundColor")
    assert behind.startswith("rgb(")  # without alpha: not seen through


def test_a_login_elsewhere_in_this_browser_is_enough(page: Page) -> None:
    choose(page)
    expect(page.locator("button.go")).to_be_enabled()
    # As if the session had ended, and begun again in another tab
    page.route(
        "**/predict?*",
        lambda route: route.fulfill(
            status=401, body='{"code": "login_required", "title": "", "detail": ""}'
        ),
        times=1,
    )
    page.locator("button.go").click()
    expect(page.locator(".said .fault")).to_have_text("Log in first.")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator("button.go").click()
    expect(page.locator(".reading h2")).to_be_visible()


def test_a_foreign_text_in_the_address_is_not_shown_as_the_services_own(
    browser: Browser, guarded: Service
) -> None:
    with opened(browser, f"{guarded.client.base_url}/?login=Call+555-0100+now") as page:
        expect(page.get_by_role("alert")).not_to_be_empty()
        expect(page.get_by_role("alert")).not_to_contain_text("555")
