"""Write the reference tables (settings, metrics, problems) from the code: ``make docs``."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from app import metrics
from app.problems import PROBLEMS
from app.settings import Settings

_NOTE = "<!-- written by `make docs` from the code; do not edit -->\n"


def settings() -> str:
    rows = [
        f"| `MAMMOSEQ_{name.upper()}` | {_default(name)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return _page(
        "Settings",
        "Environment variables of the service; printed at start.",
        ["variable", "default", "meaning"],
        rows,
    )


def metric_table() -> str:
    found = [m for m in vars(metrics).values() if isinstance(m, MetricWrapperBase)]
    rows = [
        f"| `{family.name}{'_total' if family.type == 'counter' else ''}` | {family.type} "
        f"| {', '.join(metric._labelnames) or '-'} | {family.documentation} |"
        for metric in found
        for family in metric.describe()
    ]
    return _page(
        "Metrics",
        "What `GET /metrics` answers, in Prometheus' text format.",
        ["metric", "type", "labels", "meaning"],
        rows,
    )


def problems() -> str:
    rows = [
        f"| `{code}` | {problem.status} | {problem.title} | {problem.advice} |"
        for code, problem in PROBLEMS.items()
    ]
    return _page(
        "Problems",
        "Every error is an RFC 9457 problem (`application/problem+json`) with a stable `code`.",
        ["code", "status", "title", "advice"],
        rows,
    )


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        return "from the machine"
    return f"`{field.default}`" if field.default else "-"


def _page(title: str, lead: str, columns: list[str], rows: list[str]) -> str:
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    return "\n".join([f"# {title}\n", _NOTE, f"{lead}\n", head, *rows, ""])


PAGES = {"settings.md": settings, "metrics.md": metric_table, "problems.md": problems}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parent / name).write_text(page())
