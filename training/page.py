"""The one-page HTML report of a run: self-contained, readable offline, printable."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from app.bundle import DISCLAIMER

PAGE = "report.html"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2530; background: #fff }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #d8dee6 }
th { font-weight: 600 } img { max-width: 100%; height: auto; margin: .6rem 0 }
.note { background: #fff6e0; border-left: 4px solid #d99a00; padding: .6rem .9rem }
"""


@dataclass(frozen=True)
class Table:
    """Rows of text under their headings."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, a table and pictures (PNG files), each optional."""

    heading: str
    paragraphs: Sequence[str] = ()
    table: Table | None = None
    pictures: Sequence[Path] = ()


def write_page(folder: Path, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Write ``folder/report.html`` with its pictures inside; returns its path."""
    body = "\n".join(_section(section) for section in sections)
    page = folder / PAGE
    page.write_text(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>{escape(lead)}</p>
<p class="note">{escape(DISCLAIMER)}</p>
{body}
</body></html>
""",
        encoding="utf-8",
    )
    return page


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    parts += [f"<p>{escape(text)}</p>" for text in section.paragraphs]
    if section.table is not None:
        parts.append(_table(section.table))
    parts += [_picture(path) for path in section.pictures]
    return "\n".join(parts)


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in table.headings)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>"


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    alt = escape(path.stem.replace("_", " ").replace("-", " "))
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'
