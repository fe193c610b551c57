"""The page's view of the model on the real service, and plots by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from tests.page.browser import DESKTOP, opened
from tests.serving import Service

_DRAW = """async (arguments_) => {
  const { timePlot } = await import("/web/plots/time.js");
  const host = document.createElement("div");
  host.style.width = "308px";
  document.querySelector("main").replaceChildren(host);
  timePlot(host, arguments_);
}"""


@contextmanager
def about(
    browser: Browser,
    server: Service,
    size: tuple[int, int] = DESKTOP,
    *,
    theme: str = "dark",
    answers: dict[str, str] | None = None,
) -> Iterator[Page]:
    """The view of the model, loaded."""
    address = f"{server.client.base_url}/#model"
    with opened(browser, address, size, theme=theme, answers=answers) as page:
        expect(page.locator(".card")).to_be_visible()
        yield page


def draw(page: Page, **arguments: Any) -> Locator:
    """``timePlot`` alone, in the place of all else on the page."""
    page.evaluate(_DRAW, arguments)
    return page.locator("main figure")


def numbers(parts: Locator, *names: str) -> list[tuple[float, ...]]:
    """Attributes of each of some SVG elements, as numbers."""
    found: list[tuple[float, ...]] = parts.evaluate_all(
        "(all, names) => all.map((one) => names.map((name) => Number(one.getAttribute(name))))",
        list(names),
    )
    return [tuple(row) for row in found]


def scales(plot: Locator) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where 0 and 1 are on both axes: the base line, and the lowest and the highest of the fine
    lines."""
    ((left, right),) = numbers(plot.locator(".axis line.base").first, "x1", "x2")
    heights = [y for (y,) in numbers(plot.locator(".axis line.grid"), "y1")]
    return (left, right), (max(heights), min(heights))


def at(scale: tuple[float, float], share: float) -> float:
    start, end = scale
    return start + share * (end - start)
