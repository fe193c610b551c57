"""Write the reference tables (settings, metrics, problems) from the code: ``make docs``."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from app import metrics
from app.problems import PROBLEMS
from app.settings import Settings
from docs.metric_notes import LABELS, NOTES

_LABELS_AND_OTHERS = """
## Labels

Every value is one of a list that is known beforehand; none comes from a file, an address or a
header.

| label | its values |
|---|---|
{labels}

## Of the process

From the Prometheus client. With several processes `process_*` are of all together (sums, but for
when the first started) and `python_*` are not there.

| metric | unit | when to worry |
|---|---|---|
| `process_resident_memory_bytes` | bytes | Near the limit of the container, or rising for days. |
| `process_cpu_seconds_total` | seconds of a core | At the cores that there are. |
| `process_open_fds`, `process_max_fds` | files | Near each other: clients are not closed. |
"""
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
    rows = [_metric_row(metric, family) for metric in found for family in metric.describe()]
    table = _page(
        "Metrics",
        "What `GET /metrics` answers, in Prometheus' text format: on the port of the service, or "
        "on `MAMMOSEQ_METRICS_PORT` if that is set. Of several processes, any one tells the "
        "sums of all. A name that ends in `_total` only grows, until a restart; a "
        "histogram has `_bucket`, `_sum` and `_count`. What to do when an alert says so: "
        "[runbook.md](runbook.md).",
        ["metric", "type", "unit", "labels", "meaning", "when to worry"],
        rows,
    )
    return table + _LABELS_AND_OTHERS.format(
        labels="\n".join(f"| `{name}` | {meaning} |" for name, meaning in LABELS.items())
    )


def _metric_row(metric: MetricWrapperBase, family: Metric) -> str:
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = ", ".join(metric._labelnames) or "-"
    note = NOTES[name]
    return (
        f"| `{name}` | {family.type} | {note.unit} | {labels} | {family.documentation} "
        f"| {note.worry} |"
    )


def problems() -> str:
    rows = [
        f"| `{code}` | {problem.status} | {problem.title} | {problem.advice} |"
        for code, problem in PROBLEMS.items()
    ]
    return _page(
        "Problems",
        "Every error is an RFC 9457 problem (`application/problem+json`) with a stable `code`. "
        "`error` is code and detail in one line, for clients of the Open Inference Protocol.",
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
