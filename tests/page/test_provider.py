"""The login with an OpenID provider, a real one: when it fails, and when a session ends while
somebody is at work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.browser import barriers, opened
from tests.page.test_login import choose
from tests.serving import Service

BY_PROVIDER = "Log in with your organisation"


@pytest.fixture(scope="module")
def service(service_with_provider: Service) -> Service:
    return service_with_provider


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """Of Ana, who has logged in and chosen an image."""
    with opened(browser, str(service.client.base_url)) as page:
        expect(page.get_by_role("link", name=BY_PROVIDER)).to_be_visible()
        tab = page.context.new_page()
        tab.goto(f"{service.client.base_url}/session/oidc")
        log_in_there(tab, "ana")
        expect(tab.locator(".user")).to_have_text("ana@hospital")
        tab.close()
        page.reload()
        choose(page)
        expect(page.locator("button.go")).to_be_enabled()
        yield page


def log_in_there(page: Page, user: str) -> None:
    page.fill("input[name=login]", user)
    page.fill("input[name=password]", "any")
    page.click("button[type=submit]")
    page.click("button[type=submit]")


def begin_again(page: Page) -> Page:
    """The session has ended; the window in which the provider asks who is there."""
    page.context.clear_cookies()
    page.locator("button.go").click()
    link = page.get_by_role("dialog").get_by_role("link", name=BY_PROVIDER)
    expect(link).to_be_visible()
    assert barriers(page) == []
    with page.expect_popup() as popup:
        link.click()
    return popup.value


def test_after_a_login_in_another_window_the_images_are_still_there(page: Page) -> None:
    window = begin_again(page)
    with window.expect_event("close"):
        log_in_there(window, "ana")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator("button.go").click()
    expect(page.locator(".reading h2")).to_be_visible()


def test_a_window_that_cannot_close_itself_says_that_it_may_be_closed(page: Page) -> None:
    window = begin_again(page)
    window.add_init_script("window.close = () => {}")
    log_in_there(window, "ana")
    expect(window.get_by_role("status")).to_contain_text("Close this window")
    expect(page.get_by_role("dialog")).to_have_count(0)
    window.close()
    expect(page.locator("button.go")).to_be_enabled()


def test_somebody_else_who_logs_in_there_finds_nothing(page: Page) -> None:
    window = begin_again(page)
    with window.expect_event("close"):
        log_in_there(window, "ben")
    expect(page.locator(".user")).to_have_text("ben@hospital")
    expect(page.locator(".images > li")).to_have_count(0)


def test_a_failed_login_there_is_not_called_a_wrong_password(
    browser: Browser, service: Service
) -> None:
    with opened(browser, f"{service.client.base_url}/session/oidc/callback?state=none") as page:
        expect(page.get_by_role("alert")).to_contain_text("organisation did not succeed")
        expect(page.get_by_role("link", name=BY_PROVIDER)).to_be_visible()


def test_that_a_login_is_done_is_said_to_nobody_who_is_not_in(
    browser: Browser, service: Service
) -> None:
    with opened(browser, f"{service.client.base_url}/?login=done") as page:
        expect(page.get_by_role("link", name=BY_PROVIDER)).to_be_visible()
        expect(page.get_by_text("Close this window")).to_have_count(0)
