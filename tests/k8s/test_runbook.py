"""The runbook: an entry for every alert, that says what it means, what to look at, with commands
that Prometheus and a shell can read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.k8s.test_rules import ALERTS, GROUPS
from tests.real_parts import require

DOCS = Path(__file__).resolve().parents[2] / "docs"
RUNBOOK = (DOCS / "runbook.md").read_text()
ENTRIES = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
QUERIES = re.findall(r"promtool query (?:instant|range [^'\n]*) ?\$PROMETHEUS '([^']+)'", RUNBOOK)
# Of others: the cluster's, and Prometheus' own
OTHERS = {"up", "process_resident_memory_bytes"}


def test_every_alert_has_its_entry_and_names_it() -> None:
    assert ENTRIES.keys() == ALERTS.keys()
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"


@pytest.mark.parametrize("name", ALERTS)
def test_entry_says_what_it_means_three_things_to_look_at_and_what_helps(name: str) -> None:
    entry = ENTRIES[name]
    means, *steps = re.split(r"^\d\. ", entry, flags=re.MULTILINE)
    assert len(means.split()) >= 10
    assert len(steps) == 3
    assert re.search(r"^Then: ", steps[2], re.MULTILINE)
    assert re.search(r"promtool query|kubectl|lines \|", entry), "a command"


def test_every_alert_is_in_the_table_of_what_there_is() -> None:
    page = (DOCS / "observability.md").read_text()
    rows = re.findall(r"^\| (Mammoseq\w+(?:, Mammoseq\w+)*) \| ([a-z, ]+) \|", page, re.MULTILINE)
    told = {
        name: severity
        for names, severities in rows
        for name, severity in zip(
            names.split(", "), _as_many(severities.split(", "), names.count(",") + 1), strict=True
        )
    }
    assert told == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}


def _as_many(severities: list[str], count: int) -> list[str]:
    return severities * count if len(severities) == 1 else severities


def test_every_question_to_prometheus_is_one_about_metrics_that_there_are(tmp_path: Path) -> None:
    rules = [{"record": f"question:{n}", "expr": query} for n, query in enumerate(QUERIES)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": rules}]}))
    assert RUNBOOK.count("promtool query") == len(QUERIES) > 20
    subprocess.run([require("promtool"), "check", "rules", file], check=True, capture_output=True)
    recorded = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
    tables = (DOCS / "metrics.md").read_text() + (DOCS / "bridge.md").read_text()
    documented = set(re.findall(r"`(mammoseq_\w+)`", tables))
    asked = {
        name for query in QUERIES for name in re.findall(r"\b(?:mammoseq|process|up)[\w:]*", query)
    }
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert plain - {"mammoseq"} <= documented | recorded | OTHERS


def test_every_command_is_one_for_a_shell() -> None:
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", RUNBOOK, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`((?:kubectl|promtool|lines|curl) [^`]+)`", RUNBOOK)
    assert len(blocks) > 20
    for command in (*blocks, *spans):
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_every_link_leads_somewhere() -> None:
    for file, anchor in re.findall(r"\]\(([\w/.-]*)(?:#([\w-]+))?\)", RUNBOOK):
        text = (DOCS / file).read_text() if file else RUNBOOK
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
        assert not anchor or anchor in anchors, f"{file}#{anchor}"


def test_a_pod_without_a_log_does_not_hide_those_of_the_others() -> None:
    """One that is starting has none, and only one that was restarted has a previous one."""
    of_several = re.findall(r"kubectl -n mammoseq logs -l (.*)", RUNBOOK)
    assert len(of_several) == 4
    assert all("--ignore-errors" in command for command in of_several)
