"""What is taken for reading: odd files, fields half filled, a service that is busy or gone."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.page.browser import opened
from tests.page.test_reading import YEARS, cards, choose, film, payload, read
from tests.pictures import breast, png
from tests.serving import Service


@pytest.fixture
def page(browser: Browser, server: Service) -> Iterator[Page]:
    with opened(browser, str(server.client.base_url)) as page:
        expect(page.locator(".drop")).to_be_visible()  # its modules have run
        yield page


def refusal(code: str, status: int, **headers: str) -> Callable[[Route], None]:
    body = json.dumps({"code": code, "title": "", "status": status, "detail": ""})
    return lambda route: route.fulfill(status=status, body=body, headers=headers)


def dates(page: Page) -> list[Locator]:
    return page.get_by_label("Date").all()


# fields


def test_dates_are_typed_key_by_key_however_they_sort(page: Page) -> None:
    for seed in range(3):
        choose(page, payload(f"{seed}.png", png(breast(seed=seed))))
    expect(cards(page)).to_have_count(3)
    expect(page.locator(".is-looking")).to_have_count(0)
    typed = {"05092022": "2022-05-09", "06122021": "2021-06-12", "07132020": "2020-07-13"}
    boxes = [page.locator(f"#{box.get_attribute('id')}") for box in dates(page)]
    for box, keys in zip(boxes, typed, strict=True):
        box.focus()
        page.keyboard.type(keys)
    assert [box.input_value() for box in boxes] == list(typed.values())
    page.locator("button.go").focus()
    expect(cards(page).first).to_contain_text("2.png")  # then they are put in order


def test_half_a_date_is_not_sent_as_none(page: Page) -> None:
    choose(page, payload("a.png", png(breast())))
    expect(page.locator("button.go")).to_be_enabled()
    page.get_by_label("Date").focus()
    page.keyboard.type("0509")
    page.get_by_label("Side").focus()
    expect(page.locator(".field-date .fault")).to_have_text("Not a date.")
    expect(page.locator("button.go")).to_be_disabled()


def test_a_field_that_is_emptied_shows_again_what_the_file_says(page: Page) -> None:
    choose(page, payload("a.dcm", film("2024-01-31", 0)))
    expect(page.get_by_label("Side")).to_have_value("L")
    page.get_by_label("Side").select_option("")
    expect(page.get_by_label("Side")).to_have_value("L")
    page.get_by_label("Date").fill("")
    page.get_by_label("Date").blur()
    expect(page.get_by_label("Date")).to_have_value("2024-01-31")


def test_removing_goes_on_with_the_next_image(page: Page) -> None:
    choose(page, *(payload(f"{i}.dcm", film(YEARS[i], i)) for i in range(3)))
    expect(page.locator("button.go")).to_have_text("Read 3 images")
    expect(page.locator("button.go")).to_be_enabled()
    page.get_by_role("button", name="Remove 1.dcm").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Remove 2.dcm")).to_be_focused()


def test_many_files_are_looked_at_and_removed_at_once(page: Page) -> None:
    image = png(breast())
    choose(page, *(payload(f"{i}.png", image) for i in range(60)))
    expect(page.locator(".count")).to_contain_text("60 images")
    page.get_by_role("button", name="Remove all").click()
    expect(cards(page)).to_have_count(0)


def test_a_name_that_turns_the_direction_of_writing_turns_its_own_only(page: Page) -> None:
    choose(page, payload("\u202egnp.exe<b>.png", png(breast())))
    name = page.locator(".image .name")
    expect(name).to_have_text("\u202egnp.exe<b>.png")
    assert name.evaluate("node => getComputedStyle(node).unicodeBidi") == "isolate"


# archives


def archive(how: int = zipfile.ZIP_DEFLATED, **files: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", how) as packed:
        for name, content in files.items():
            with packed.open(name, "w", force_zip64=True) as one:
                one.write(content)
    return held.getvalue()


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_with_and_without_compression_are_opened(page: Page, how: int) -> None:
    packed = archive(how, a=film(YEARS[0], 0), b=film(YEARS[1], 1))
    choose(page, payload("study.zip", packed))
    expect(page.locator(".count")).to_have_text("2 images, 2 dates")
    expect(page.locator(".image.is-refused")).to_have_count(0)


def encrypted(packed: bytes) -> bytes:
    """The first file is flagged as encrypted, and its content is without meaning."""
    garbled = bytes(byte ^ 0x5A for byte in packed[60:400])
    return packed[:6] + bytes([packed[6] | 1]) + packed[7:60] + garbled + packed[400:]


def between_two_files(packed: bytes) -> bytes:
    return packed[: packed.index(b"PK\x03\x04", 4)]


@pytest.mark.parametrize("harm", [encrypted, between_two_files])
def test_an_archive_that_cannot_be_opened_whole_is_not_taken(
    page: Page, harm: Callable[[bytes], bytes]
) -> None:
    packed = archive(a=film(YEARS[0], 0), b=film(YEARS[1], 1))
    choose(page, payload("study.zip", harm(packed)))
    expect(page.locator(".shelf-list > .fault")).to_contain_text("damaged, encrypted")
    expect(cards(page)).to_have_count(0)


def test_a_choice_without_any_image_says_so(page: Page) -> None:
    choose(page, payload("DICOMDIR", b"index"))
    expect(page.locator(".shelf-list > .fault")).to_contain_text("no file in it")


# a service that is busy, gone, or somebody else's


def test_a_busy_service_is_asked_again_for_a_thumbnail(page: Page) -> None:
    busy = refusal("overloaded", 429, **{"Retry-After": "1"})
    page.route("**/pixels?*", busy, times=2)
    choose(page, payload("a.png", png(breast())))
    expect(page.locator("button.go")).to_be_enabled(timeout=10_000)


def test_a_service_that_was_gone_is_asked_again_on_demand(page: Page) -> None:
    page.route("**/pixels?*", lambda route: route.fulfill(status=502, body="<h1>gateway</h1>"))
    choose(page, payload("a.png", png(breast())))
    expect(cards(page)).to_contain_text("does not understand")
    page.unroute("**/pixels?*")
    page.get_by_role("button", name="Look again at 1").click()
    read(page)


def test_a_picture_that_did_not_come_is_asked_for_again_on_demand(page: Page) -> None:
    choose(page, payload("a.png", png(breast())))
    page.route("**/pixels", refusal("deadline_exceeded", 503))
    page.locator("button.go").click()
    expect(page.locator(".frame-state")).to_contain_text("took too long")
    page.unroute("**/pixels")
    page.locator(".frame-state button").click()
    expect(page.locator(".frame-state")).to_have_count(0)


def test_a_file_that_is_gone_from_the_disk_is_said_to_be(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(breast()))
    page.locator("#files").set_input_files(path)
    expect(page.locator("button.go")).to_be_enabled()
    path.unlink()
    page.locator("button.go").click()
    expect(page.locator(".said .fault")).to_contain_text("since it was chosen")


def test_a_screen_reader_is_told_the_number_of_images_once(page: Page) -> None:
    page.evaluate(
        """() => {
          window.told = [];
          const count = document.querySelector(".count");
          const tell = () => window.told.push(count.textContent);
          new MutationObserver(tell).observe(count, {childList: true});
        }"""
    )
    choose(page, *(payload(f"{i}.dcm", film(YEARS[0], i)) for i in range(8)))
    expect(page.locator("button.go")).to_be_enabled()
    assert page.evaluate("told") == ["8 images", "8 images, 1 date"]
