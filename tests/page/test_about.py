"""What the page says of the model: the figures that were measured, drawn where they belong, the
card as it was written, and what the service is doing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.bundle import Bundle
from app.figures import Figures
from tests.page.about_pages import about, at, draw, numbers, scales
from tests.page.browser import PHONE, barriers
from tests.pictures import breast, png
from tests.serving import Service


@pytest.fixture(scope="module")
def figures(bundle: Bundle) -> Figures:
    assert bundle.figures
    return Figures.model_validate_json(bundle.figures)


@pytest.fixture(scope="module")
def loaded(browser: Browser, server: Service) -> Iterator[Page]:
    """For tests that change nothing."""
    with about(browser, server) as page:
        yield page


@pytest.fixture
def page(browser: Browser, server: Service) -> Iterator[Page]:
    with about(browser, server) as page:
        yield page


def hundred(share: float) -> int:
    return int(100 * share + 0.5)


def in_words(point: Any) -> str:
    def among(rate: str) -> str:
        low, high = getattr(point, f"{rate}_interval")
        return f"{hundred(getattr(point, rate))} [{hundred(low)} to {hundred(high)}]"

    return (
        f"Of 100 breasts with cancer it calls {among('sensitivity')}, of 100 without it leaves "
        f"{among('specificity')} alone."
    )


def corners(path: Locator) -> list[tuple[float, float]]:
    numbers_ = [float(n) for n in re.findall(r"[\d.]+", path.get_attribute("d") or "")]
    return list(zip(numbers_[::2], numbers_[1::2], strict=True))


# the head


def test_head_says_what_it_is_made_from_and_not_for(loaded: Page, bundle: Bundle) -> None:
    head = loaded.locator(".about-head")
    for text in (
        f"{bundle.manifest.name} {bundle.manifest.version}", "not a medical device",
        "2360 images of 1024 breasts of 673 patients", bundle.manifest.data["terms"],
        "145 validation patients", f"{bundle.sha256[:12]}…",
    ):  # fmt: skip
        expect(head).to_contain_text(text)


def test_whole_hash_is_shown_on_demand(page: Page, bundle: Bundle) -> None:
    whole = page.get_by_text(bundle.sha256)
    expect(whole).to_be_hidden()
    page.locator(".about-hash summary").press("Enter")
    expect(whole).to_be_visible()


# operating points and ROC


def test_operating_points_are_told_in_words(loaded: Page, bundle: Bundle) -> None:
    labels = loaded.locator(".about-points label")
    expect(labels).to_have_count(len(bundle.manifest.operating_points))
    for label, point in zip(labels.all(), bundle.manifest.operating_points, strict=True):
        expect(label).to_contain_text(in_words(point))
        expect(label).to_contain_text(f"from {100 * point.threshold:.1f} % on")


def test_curves_go_where_they_were_measured(loaded: Page, figures: Figures) -> None:
    plot = loaded.locator(".about-roc svg")
    x, y = scales(plot)
    for unit, name in (("breast", ":not(.is-second)"), ("image", ".is-second")):
        roc = figures.roc[unit]  # type: ignore[index]
        drawn = corners(plot.locator(f"path.curve{name}"))
        assert len(drawn) == len(roc.points)
        for (left, top), point in zip(drawn, roc.points, strict=True):
            assert left == pytest.approx(at(x, point.false_positive_rate), abs=0.01)
            assert top == pytest.approx(at(y, point.sensitivity), abs=0.01)
        auc = roc.auc
        expect(plot).to_contain_text(
            f"per {unit}: AUC {auc.value:.3f} [{auc.low:.3f} to {auc.high:.3f}]"
        )


def test_chosen_operating_point_is_marked_with_its_intervals(page: Page, bundle: Bundle) -> None:
    plot = page.locator(".about-roc svg")
    page.locator(".about-points input:checked").focus()
    for point in bundle.manifest.operating_points:
        x, y = scales(plot)
        chosen = plot.locator(".point.is-chosen")
        expect(chosen).to_have_attribute("data-point", point.name)
        ((cx, cy),) = numbers(chosen.locator("circle"), "cx", "cy")
        assert cx == pytest.approx(at(x, 1 - point.specificity), abs=0.01)
        assert cy == pytest.approx(at(y, point.sensitivity), abs=0.01)
        up, across = numbers(chosen.locator(".interval"), "x1", "y1", "x2", "y2")
        low, high = point.sensitivity_interval
        assert (up[1], up[3]) == pytest.approx((at(y, low), at(y, high)), abs=0.01)
        low, high = point.specificity_interval
        assert (across[0], across[2]) == pytest.approx((at(x, 1 - low), at(x, 1 - high)), abs=0.01)
        name = plot.get_attribute("aria-label") or ""
        assert f"sensitivity {hundred(point.sensitivity)} %" in name
        page.keyboard.press("ArrowDown")


def test_thresholds_are_read_out_by_the_arrow_keys(page: Page, figures: Figures) -> None:
    plot = page.locator(".about-roc .plot-read")
    said = plot.locator(".plot-said")
    expect(said).to_contain_text("Point at the curve")
    plot.focus()
    point = figures.operating_points[0]
    expect(said).to_contain_text(f"calls {hundred(point.sensitivity)} of 100 with cancer")
    page.keyboard.press("Home")
    expect(said).to_have_text("Nothing is called.")
    page.keyboard.press("ArrowRight")
    first = figures.roc["breast"].points[1]
    expect(said).to_contain_text(f"From {100 * (first.threshold or 0):.1f} % on")
    page.keyboard.press("End")
    expect(said).to_contain_text("calls 100 of 100 with cancer, 100 of 100 without")


# reliability


def test_reliability_is_drawn_with_intervals_and_band(loaded: Page, figures: Figures) -> None:
    plot = loaded.locator(".about-reliability svg")
    x, y = scales(plot)
    dots = numbers(plot.locator("circle.bin"), "cx", "cy")
    bars = numbers(plot.locator("line.interval"), "x1", "y1", "y2")
    for dot, bar, bin_ in zip(dots, bars, figures.reliability, strict=True):
        place = at(x, bin_.probability)
        assert dot == pytest.approx((place, at(y, bin_.observed.value)), abs=0.01)
        wanted = (place, at(y, bin_.observed.low), at(y, bin_.observed.high))
        assert bar == pytest.approx(wanted, abs=0.01)
    band = figures.calibration_band.points
    drawn = corners(plot.locator("path.band"))
    assert len(drawn) == 2 * len(band)
    assert drawn[0] == pytest.approx((at(x, band[0].probability), at(y, band[0].high)), abs=0.01)
    assert drawn[-1] == pytest.approx((at(x, band[0].probability), at(y, band[0].low)), abs=0.01)


def test_every_plot_has_a_name_and_its_data_as_a_table(loaded: Page, figures: Figures) -> None:
    plots = loaded.locator("svg[role=img]")
    expect(plots).to_have_count(2)
    for plot in plots.all():
        assert len(plot.get_attribute("aria-label") or "") > 40
    tables = loaded.locator(".plot-data tbody")
    roc, bins = (tables.nth(index).locator("tr") for index in range(2))
    expect(roc).to_have_count(len(figures.roc["breast"].points))
    expect(bins).to_have_count(len(figures.reliability))
    for row, bin_ in zip(bins.all(), figures.reliability, strict=True):
        cells = row.locator("th, td").all_text_contents()
        assert cells[1] == str(bin_.count)
        assert cells[0] == f"{100 * bin_.probability:.1f} %"


# subgroups


def test_subgroups_are_those_of_the_figures_and_too_few_is_said(
    loaded: Page, figures: Figures
) -> None:
    rows = loaded.locator(".forest tbody tr:has(td)")
    expect(rows).to_have_count(len(figures.subgroups))
    places = []
    for row, group in zip(rows.all(), figures.subgroups, strict=True):
        expect(row.locator("th")).to_have_text(group.group)
        expect(row).to_contain_text(f"{group.positives} of {group.cases}")
        auc = group.auc
        if auc is None:
            expect(row).to_contain_text("too few to say")
            expect(row.locator("svg")).to_have_count(0)
        else:
            expect(row).to_contain_text(f"{auc.value:.3f} [{auc.low:.3f} to {auc.high:.3f}]")
            ((dot,),) = numbers(row.locator("circle"), "cx")
            ((low, high),) = numbers(row.locator("line.interval"), "x1", "x2")
            assert low < dot < high
            places += [(auc.low, low), (auc.value, dot), (auc.high, high)]
    # One line for all rows: the same distance on the plot for the same difference
    places.sort()
    (a, left), (b, right) = places[0], places[-1]
    for value, place in places:
        assert place == pytest.approx(left + (value - a) / (b - a) * (right - left), abs=0.01)


# the card


def test_card_is_shown_whole_and_without_a_mark_of_its_notation(
    loaded: Page, bundle: Bundle
) -> None:
    card = loaded.locator(".card")
    source = bundle.card.decode()
    shown = card.inner_text()
    for mark in ("**", "`", "|", "\n# ", "\n## ", "\n- "):
        assert mark in f"\n{source}"
        assert mark not in shown
    headings = re.findall(r"^## (.+)$", source, re.MULTILINE)
    assert card.locator("h4").all_text_contents() == headings
    tables = re.findall(r"^\|(?:---\|)+$", source, re.MULTILINE)
    expect(card.locator("table")).to_have_count(len(tables))
    expect(card.locator("li")).to_have_count(len(re.findall(r"^- ", source, re.MULTILINE)))
    words = re.findall(r"[A-Za-z]{4,}", re.sub(r"[`*|]", " ", source))
    assert words == re.findall(r"[A-Za-z]{4,}", shown)


HOSTILE = """# made <script>window.harmed = 1</script>

<script>window.harmed = 2</script>

A <img src=x onerror="window.harmed = 3"> and ![x](x "onerror=alert(1)").

[a](javascript:window.harmed=4), [b](https://example.org/), <javascript:alert(1)>

> quoted <b onclick="window.harmed = 5">bold</b>

| a | b |
|---|---|
| <iframe src="javascript:window.harmed=6"></iframe> | 2 |

1. one
   - two `<i>`

```html
<style>* { display: none }</style>
```

***
"""


def test_hostile_card_stays_text(browser: Browser, server: Service) -> None:
    with about(browser, server, answers={"/card": HOSTILE}) as page:
        card = page.locator(".card")
        expect(
            card.locator("script, img, iframe, style, b, i, [onerror], [onclick]")
        ).to_have_count(0)
        for text in ("window.harmed = 2", "<img src=x", "<iframe", "<style>", "<i>", "<b onclick"):
            expect(card).to_contain_text(text)
        (link,) = card.locator("a").all()
        assert link.get_attribute("href") == "https://example.org/"
        assert link.get_attribute("rel") == "noreferrer"
        assert page.evaluate("window.harmed") is None


# state


def test_state_is_the_services_own_and_throughput_is_of_the_last_interval(
    page: Page, server: Service
) -> None:
    page.clock.install()
    page.reload()
    state = page.locator(".about-state")
    rate = state.locator("dd").last
    expect(rate).to_have_text("…")
    expect(state).to_contain_text("CPU")
    before = server.get("/state").json()
    expect(state).to_contain_text(f"Images{before['images']}")
    for seed in range(3):
        assert server.post("/predict", content=png(breast(seed=seed))).status_code == 200
    page.clock.fast_forward(5500)
    expect(state).to_contain_text(f"Images{before['images'] + 3}")
    expect(rate).to_have_text(re.compile(r"\d"))
    assert float(rate.inner_text()) > 0


def test_failed_look_at_the_state_is_shown_and_the_next_one_made(page: Page) -> None:
    page.clock.install()
    page.reload()
    state = page.locator(".about-state")
    expect(state).to_contain_text("Requests")
    expect(state.locator(".fault")).to_be_empty()
    problem = '{"code": "not_ready", "title": "", "detail": ""}'
    page.route("**/state", lambda route: route.fulfill(status=503, body=problem))
    page.clock.fast_forward(5500)
    expect(state.locator(".fault")).to_contain_text("cannot compute at the moment")
    page.unroute("**/state")
    page.clock.fast_forward(5500)
    expect(state.locator(".fault")).to_be_empty()


def test_state_is_asked_for_only_while_it_is_looked_at(page: Page) -> None:
    page.clock.install()
    page.reload()
    expect(page.locator(".card")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("link", name="Read", exact=True).click()
    expect(page.locator(".drop")).to_be_visible()
    page.clock.fast_forward(5500)
    page.clock.fast_forward(5500)
    assert not [url for url in asked if url.endswith("/state")]
    with page.expect_request("**/state"):
        page.get_by_role("link", name="About the model").click()


# what is missing


def test_model_without_figures_has_its_card_and_says_so(browser: Browser, server: Service) -> None:
    with about(browser, server) as page:
        problem = '{"code": "not_found", "title": "", "detail": ""}'
        page.route("**/figures", lambda route: route.fulfill(status=404, body=problem))
        page.reload()
        expect(page.locator(".about-content")).to_contain_text("comes without figures")
        expect(page.locator(".card")).to_be_visible()
        expect(page.locator("svg[role=img]")).to_have_count(0)


# anybody, anywhere


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("size", [(1440, 900), PHONE], ids=["desktop", "phone"])
def test_model_is_shown_without_barriers(
    browser: Browser, server: Service, theme: str, size: tuple[int, int]
) -> None:
    with about(browser, server, size, theme=theme) as page:
        for summary in page.locator("summary").all():
            summary.click()
        assert barriers(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]


# the probability over time


def exams(days: list[int], probabilities: list[float]) -> list[dict[str, Any]]:
    first = date(2019, 2, 11)
    return [
        {"date": str(first + timedelta(day)), "probability": p, "low": p / 2, "high": (1 + p) / 2}
        for day, p in zip(days, probabilities, strict=True)
    ]


TWO = {"before": 0.28, "threshold": 0.34, "thresholdName": "Balanced"}


def test_exams_stand_where_their_dates_and_probabilities_are(page: Page) -> None:
    days, probabilities = [0, 100, 900, 1000], [0.2, 0.5, 0.3, 0.9]
    figure = draw(page, exams=exams(days, probabilities), **TWO)
    _, y = scales(figure)
    dots = numbers(figure.locator("circle.exam-dot"), "cx", "cy")
    left, right = dots[0][0], dots[-1][0]
    bars = numbers(figure.locator("line.interval"), "x1", "y1", "y2")
    for (cx, cy), bar, day, p in zip(dots, bars, days, probabilities, strict=True):
        assert cx == pytest.approx(left + day / 1000 * (right - left), abs=0.02)
        assert cy == pytest.approx(at(y, p), abs=0.01)
        assert bar == pytest.approx((cx, at(y, p / 2), at(y, (1 + p) / 2)), abs=0.02)
    ((_, start),) = numbers(figure.locator("circle.start"), "cx", "cy")
    assert start == pytest.approx(at(y, 0.28))
    ((threshold,),) = numbers(figure.locator("line.threshold"), "y1")
    assert threshold == pytest.approx(at(y, 0.34))
    expect(figure.locator(".threshold-name")).to_have_text("Balanced: 34 %")
    called = figure.locator("circle.exam-dot.is-positive")
    assert [y for (y,) in numbers(called, "cy")] == pytest.approx([at(y, 0.5), at(y, 0.9)])


def test_what_each_exam_changed_is_written_and_in_the_table(page: Page) -> None:
    figure = draw(page, exams=exams([0, 365, 800], [0.2, 0.25, 0.43]), **TWO)
    assert sorted(figure.locator(".change").all_text_contents()) == sorted(
        ["\N{MINUS SIGN}8 points", "+5 points", "+18 points"]
    )
    rows = figure.locator("tbody tr").all()
    assert [row.locator("th, td").all_text_contents() for row in rows] == [
        ["before any exam", "28.0 %", "", ""],
        ["2019-02-11", "20.0 %", "10 to 60 of 100", "\N{MINUS SIGN}8.0"],
        ["2020-02-11", "25.0 %", "13 to 63 of 100", "+5.0"],
        ["2021-04-21", "43.0 %", "22 to 72 of 100", "+18.0"],
    ]


def test_exams_are_read_out_by_arrow_keys_and_pointer(page: Page) -> None:
    figure = draw(page, exams=exams([0, 365, 800], [0.2, 0.25, 0.43]), **TWO)
    said = figure.locator(".plot-said")
    expect(said).to_contain_text("2021-04-21: 43.0 %")
    figure.locator(".plot-read").focus()
    page.keyboard.press("ArrowLeft")
    expect(said).to_contain_text("2020-02-11: 25.0 %, cancer in 13 to 63 of 100 such breasts")
    figure.locator("circle.exam-dot").first.hover()
    expect(said).to_contain_text("2019-02-11: 20.0 %")


@pytest.mark.parametrize(
    "days",
    [
        [0], [0, 1], [0, 9, 40], [0, 365, 366, 730], [0, 3000, 3001, 3002, 3003],
        [350 * i for i in range(10)], [365 * i for i in range(16)], [5 * i for i in range(16)],
    ],
    ids=lambda days: f"{len(days)} in {days[-1]} days",
)  # fmt: skip
@pytest.mark.parametrize("before", [0.28, None])
def test_no_two_texts_of_the_dates_or_changes_run_into_each_other(
    page: Page, days: list[int], before: float | None
) -> None:
    swing = [0.3 + 0.25 * ((i * 7) % 5 - 2) / 2 for i in range(len(days))]
    figure = draw(page, exams=exams(days, swing), **{**TWO, "before": before})
    for texts in (".axis text", ".change"):
        boxes = [text.bounding_box() for text in figure.locator(texts).all()]
        for index, one in enumerate(boxes):
            for other in boxes[index + 1 :]:
                assert one is not None
                assert other is not None
                apart = (
                    one["x"] + one["width"] <= other["x"] + 1
                    or other["x"] + other["width"] <= one["x"] + 1
                    or one["y"] + one["height"] <= other["y"] + 4
                    or other["y"] + other["height"] <= one["y"] + 4
                )
                assert apart
    expect(figure.locator("circle.exam-dot")).to_have_count(len(days))
    expect(figure.locator("circle.start")).to_have_count(0 if before is None else 1)


def test_band_is_interpolated_and_ends_where_the_data_do(page: Page, figures: Figures) -> None:
    points = figures.calibration_band.points

    def band(probability: float) -> dict[str, float] | None:
        found: dict[str, float] | None = page.evaluate(
            """async ([figures, probability]) =>
              (await import("/web/plots/time.js")).bandAt(figures, probability)""",
            [figures.model_dump(mode="json"), probability],
        )
        return found

    for point in (points[0], points[5], points[-1]):
        assert band(point.probability) == pytest.approx({"low": point.low, "high": point.high})
    a, b = points[3], points[4]
    between = band((a.probability + b.probability) / 2)
    assert between == pytest.approx({"low": (a.low + b.low) / 2, "high": (a.high + b.high) / 2})
    assert band(points[0].probability - 0.001) is None
    assert band(points[-1].probability + 0.001) is None


def test_band_of_a_model_without_figures_is_unknown(page: Page) -> None:
    assert (
        page.evaluate('import("/web/plots/time.js").then((time) => time.bandAt(null, 0.3))') is None
    )
