"""The page in a real Chromium, and what must never happen in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Playwright, Request, Route

from tests.real_parts import require

ARGUMENTS = [
    "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking",
]  # fmt: skip
DESKTOP = (1440, 900)
PHONE = (390, 844)
# WCAG 2.2 AA, and what axe calls good practice besides
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=require("chromium"), args=ARGUMENTS)


@dataclass
class Watched:
    """What a page did that it must not: errors, requests to elsewhere."""

    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


@contextmanager
def opened(
    browser: Browser,
    address: str,
    size: tuple[int, int] = DESKTOP,
    *,
    theme: str = "dark",
    answers: Mapping[str, str] | None = None,
) -> Iterator[Page]:
    """A page of a fresh visitor at ``address``. Fails at the end if the page threw, broke its
    content security policy, or asked anybody but the service. ``answers`` by the end of an address
    are given in the place of the service's."""
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height})
    context.add_init_script(f"localStorage.setItem('mammoseq-theme', '{theme}')")
    for end, body in (answers or {}).items():
        context.route(f"**{end}", _answering(body))
    page = context.new_page()
    watched = Watched()
    origin = "/".join(address.split("/")[:3])

    def asked(request: Request) -> None:
        if not request.url.startswith((origin, "blob:", "data:")):
            watched.foreign.append(request.url)

    page.on("request", asked)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on(
        "console",
        lambda message: (
            # Chromium reports everything that was not answered with 200 as an error of its own
            watched.errors.append(message.text)
            if message.type == "error" and "Failed to load resource" not in message.text
            else None
        ),
    )
    page.goto(address)
    yield page
    context.close()
    assert watched == Watched()


def _answering(body: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(body=body)


def barriers(page: Page) -> list[str]:
    """What keeps somebody from using the page, as axe sees it: rule and place."""
    results = Axe().run(page, options={"runOnly": {"type": "tag", "values": _RULES}})
    return [
        f"{found['id']}: {node['target']} {node.get('failureSummary', '')}"
        for found in results.response["violations"]
        for node in found["nodes"]
    ]
