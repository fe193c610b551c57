"""On paper: every breast that was read, a page for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.browser import barriers, opened
from tests.page.test_reading import choose, film, payload, read
from tests.serving import Service

EXAMS = ("2022-01-31", "2024-01-31")
COUNTED = """() => {
  const { dataset } = document.documentElement
  window.print = () => (dataset.printed = Number(dataset.printed ?? 0) + 1)
}"""
SIZE = "(({scrollWidth, scrollHeight}) => [scrollWidth, scrollHeight])(document.documentElement)"
# Whether something of a picture is drawn
DRAWN = """(canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
  return data.some((value, place) => place % 4 < 3 && value > 60)
}"""


@pytest.fixture
def page(browser: Browser, server: Service) -> Iterator[Page]:
    """Two exams of both breasts, read; printing is only counted."""
    with opened(browser, str(server.client.base_url)) as page:
        expect(page.locator(".drop")).to_be_visible()
        page.evaluate(COUNTED)
        files = [
            payload(f"{date}-{side}", film(date, place, ImageLaterality=side))
            for place, date in enumerate(EXAMS)
            for side in "LR"
        ]
        choose(page, *files)
        read(page)
        yield page


def pages(page: Page) -> int:
    return page.pdf(prefer_css_page_size=True).count(b"/Type /Page\n")


def print_it(page: Page, times: int = 1) -> None:
    page.locator("[data-form=print]").click()
    expect(page.locator("html")).to_have_attribute("data-printed", str(times))


@pytest.mark.parametrize("shown", ["Left", "Right"])
def test_all_breasts_are_printed_in_their_order_whichever_is_shown(page: Page, shown: str) -> None:
    page.get_by_role("tab", name=f"{shown} breast").click()
    expect(page.locator(".frame-state")).to_have_count(0)
    page.locator("#operating-point").select_option("specificity-90")
    print_it(page)
    assert pages(page) == 2
    page.emulate_media(media="print")
    for place, side in enumerate(("Left", "Right")):
        breast = page.locator(".breast").nth(place)
        expect(breast.get_by_role("heading", name=f"{side} breast")).to_be_visible()
        expect(breast.locator(".print-result").last).to_be_visible()
        expect(breast).to_contain_text("specificity")
        for canvas in breast.locator("canvas.viewer-canvas").all():
            assert canvas.evaluate(DRAWN)
    # Each page says what it is not for: the first in the page's own head
    expect(page.locator(".of-page").first).to_be_hidden()
    expect(page.locator(".of-page").last).to_contain_text("Not a medical device")
    expect(page.locator(".on-paper")).to_be_hidden()


def test_what_is_for_paper_is_on_no_screen(page: Page) -> None:
    size = page.evaluate(SIZE)
    print_it(page)
    assert page.evaluate(SIZE) == size
    assert barriers(page) == []
    assert page.locator(".is-paper").evaluate("node => node.inert")
    expect(page.locator(".is-paper h2")).to_be_hidden()
    print_it(page, times=2)
    expect(page.locator(".is-paper")).to_have_count(1)
    page.get_by_role("tab", name="Right breast").click()
    expect(page.locator(".is-paper")).to_have_count(0)


def test_without_the_pages_own_button_the_print_says_that_it_is_of_one(page: Page) -> None:
    """A browser does not wait for what its own print command would need."""
    assert pages(page) == 1
    page.emulate_media(media="print")
    expect(page.locator(".on-paper")).to_contain_text("More than one breast was read")
