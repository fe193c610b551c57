"""The way into the page and out of it, in a real browser on a service that asks who is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.access.passwords import hashed
from tests.page.browser import barriers, opened
from tests.pictures import breast, png
from tests.serving import Service, serving

PASSWORD = "correct horse battery staple"  # pragma: allowlist secret


@pytest.fixture(scope="module")
def guarded(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("guarded")
    users = f"ana:{hashed(PASSWORD)} eve:{hashed(PASSWORD)}"
    with serving(bundle_folder, folder, access="login", users=users) as service:
        yield service


@pytest.fixture
def page(browser: Browser, guarded: Service) -> Iterator[Page]:
    with opened(browser, str(guarded.client.base_url)) as page:
        expect(page.locator(".login-form")).to_be_visible()
        yield page


def log_in(page: Page, user: str = "ana", password: str = PASSWORD) -> None:
    page.get_by_label("User").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def choose(page: Page) -> None:
    content = png(breast())
    page.locator("#files").set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": content}
    )


def test_nothing_is_shown_before_a_login_but_what_it_is(page: Page) -> None:
    expect(page.get_by_role("heading", name="Mammoseq")).to_be_visible()
    expect(page.locator(".research")).to_contain_text("Not a medical device")
    expect(page.locator(".drop")).to_have_count(0)
    assert barriers(page) == []


@pytest.mark.parametrize(("user", "password"), [("ana", "wrong"), ("nobody", PASSWORD)])
def test_a_wrong_login_is_refused_without_a_word_of_what_was_wrong(
    page: Page, user: str, password: str
) -> None:
    log_in(page, user, password)
    expect(page.get_by_role("alert")).to_have_text("User or password is wrong.")
    expect(page.get_by_label("Password")).to_be_focused()
    expect(page.get_by_label("Password")).to_have_value("")
    expect(page.locator(".drop")).to_have_count(0)


def test_a_login_needs_both_user_and_password(page: Page) -> None:
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("Both are needed.")
    expect(page.get_by_label("User")).to_be_focused()


def test_somebody_who_is_in_reads_an_image_and_leaves(page: Page) -> None:
    log_in(page)
    expect(page.locator(".user")).to_have_text("ana")
    choose(page)
    page.locator("button.go").click()
    expect(page.locator(".reading h2")).to_be_visible()
    page.reload()
    expect(page.locator(".user")).to_have_text("ana")
    page.get_by_role("button", name="Log out").click()
    expect(page.locator(".login-form")).to_be_visible()
    page.reload()
    expect(page.locator(".login-form")).to_be_visible()


def test_no_script_can_read_the_session(page: Page) -> None:
    log_in(page)
    expect(page.locator(".user")).to_be_visible()
    assert page.evaluate("document.cookie") == ""
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"


def test_a_session_that_ends_asks_for_the_login_and_keeps_the_images(page: Page) -> None:
    log_in(page)
    choose(page)
    expect(page.locator("button.go")).to_be_enabled()
    page.context.clear_cookies()
    page.locator("button.go").click()
    again = page.get_by_role("dialog")
    expect(again).to_be_visible()
    again.get_by_label("User").fill("ana")
    again.get_by_label("Password").fill(PASSWORD)
    again.get_by_role("button", name="Log in").click()
    expect(again).to_have_count(0)
    page.locator("button.go").click()
    expect(page.locator(".reading h2")).to_be_visible()


def test_after_repeated_failures_the_way_in_is_locked_for_a_while(page: Page) -> None:
    for _ in range(6):
        log_in(page, "eve", "wrong")
        expect(page.get_by_label("Password")).to_have_value("")
    log_in(page, "eve")
    expect(page.get_by_role("alert")).to_contain_text("Too many failures. Try again in")


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("provider_unreachable", "does not answer"),
        ("Call%20555%20to%20go%20on", "does not understand"),
    ],
)
def test_only_what_the_service_may_say_of_a_login_elsewhere_is_shown(
    browser: Browser, guarded: Service, told: str, shown: str
) -> None:
    with opened(browser, f"{guarded.client.base_url}/?login={told}") as page:
        expect(page.get_by_role("alert")).to_contain_text(shown)
        assert "555" not in page.locator("body").inner_text()
        assert page.evaluate("location.search") == ""  # and only once


def test_an_open_page_says_that_it_is(browser: Browser, server: Service) -> None:
    with opened(browser, str(server.client.base_url)) as page:
        expect(page.get_by_text("No login")).to_be_visible()
        expect(page.get_by_role("button", name="Log out")).to_have_count(0)


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
