"""Every word of the page is in one file, and every word of that file is used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from app.problems import PROBLEMS
from tests.page.conftest import Site, empty_tab

WEB = Path(__file__).parents[2] / "app" / "web"
MODULES = [path for path in WEB.rglob("*.js") if path.parent.name not in ("vendor", "strings")]
ALL = "(await import('/web/strings/en.js')).default"
# What the service says of files in `ignored` and is no problem of its own
LEFT_OUT = ["duplicate_image", "older_image", "synthetic_image", "breast_unknown"]


@pytest.fixture(scope="module")
def words(browser: Browser, site: Site) -> Iterator[Page]:
    """One tab for all: asking for words changes nothing."""
    with empty_tab(browser, site) as tab:
        tab.goto("/test/viewer.html")
        yield tab


@pytest.mark.parametrize("code", [*PROBLEMS, "unreachable", "broken_page", "file_changed"])
def test_every_problem_has_words(words: Page, code: str) -> None:
    said = words.evaluate(f"async (code) => {ALL}.problem({{code, title: 'none'}})", code)
    assert re.match(r"[A-Z].*[.?]$", said)
    assert said != words.evaluate(f"async () => {ALL}.problems.unexpected")


@pytest.mark.parametrize("code", LEFT_OUT)
def test_why_a_file_was_left_out_has_words(words: Page, code: str) -> None:
    said = words.evaluate(f"async (code) => {ALL}.result.leftOut(code)", code)
    assert said != words.evaluate(f"async () => {ALL}.problems.unexpected")


@pytest.mark.parametrize("code", ["constructor", "Call 555-0100"])
def test_an_unknown_problem_is_not_read_out(words: Page, code: str) -> None:
    """The page takes a code from its address."""
    said = words.evaluate(f"async (code) => {ALL}.problem({{code, title: code}})", code)
    assert said == words.evaluate(f"async () => {ALL}.problems.unexpected")


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0.0 %"), (0.0003, "< 0.1 %"), (0.25, "25.0 %"), (0.9997, "> 99.9 %"), (1, "100.0 %")],
)
def test_what_is_not_certain_is_not_written_as_certain(
    words: Page, share: float, said: str
) -> None:
    assert words.evaluate(f"async (s) => {ALL}.numbers.percentFine(s)", share) == said


@pytest.mark.parametrize("change", [0.004, -0.004])
def test_a_change_too_small_to_be_written_has_no_sign(words: Page, change: float) -> None:
    assert words.evaluate(f"async (c) => {ALL}.plots.change(c)", change) == "±0 points"


def test_how_much_is_taken_at_once_is_told(words: Page) -> None:
    for code, detail in (
        ("too_many_exams", "The series has 60 exams; at most 16 are accepted."),
        ("too_many_images", "At most 64 are accepted."),
    ):
        said = words.evaluate(f"async (p) => {ALL}.problem(p)", {"code": code, "detail": detail})
        assert re.search(r"takes (16|64) (exams|images) at once", said)


def test_every_word_is_used(words: Page) -> None:
    names = words.evaluate(
        f"async () => Object.entries({ALL}).flatMap(([section, words]) => typeof words === 'object'"
        " ? Object.keys(words) : section)"
    )
    code = "\n".join(path.read_text() for path in MODULES)
    by_code = {*PROBLEMS, "unexpected", "unreachable"}  # looked up by what the service answers
    unused = [n for n in names if n not in by_code and not re.search(rf"\b{re.escape(n)}\b", code)]
    assert unused == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_modules_hold_no_words(path: Path) -> None:
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL)
    sentences = re.findall(r"""["'`]([A-Z][a-z]+ [a-z][^"'`]*)["'`]""", code)
    assert sentences == []
