"""Every expression of the dashboard and of the rules, put to a real Prometheus that scrapes a real
service under a little load."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.pictures import breast, dicom, png
from tests.prometheus import found, scraping
from tests.serving import Service, free_port, serving

MONITORING = Path(__file__).resolve().parents[2] / "k8s" / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text())
PANELS = [
    (panel["title"], target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
# What a service of some seconds without a GPU does not have
NOT_HERE = re.compile(r"DCGM_|week_before|scores_before")
SELECTOR = re.compile(r"\b(?:mammoseq[a-z0-9_:]*|up|process_[a-z_]+)(?:\{[^}]*\})?")
WITHIN_SECONDS = 30


@pytest.fixture(scope="module")
def prometheus(
    bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("monitored")
    port = free_port()
    often = {"groups": [group | {"interval": "1s"} for group in RULES["groups"]]}
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(often))
    with (
        serving(bundle_folder, folder, metrics_port=port, processes=2, workers=1) as service,
        scraping(port, folder, rules) as client,
    ):
        deadline = time.monotonic() + WITHIN_SECONDS
        while not found(client, "mammoseq:score_drift_from_validation:psi7d > 0"):
            assert time.monotonic() < deadline, "the last of the rules has no data"
            load(service)
        yield client


def load(service: Service) -> None:
    """Some of everything: images, a study with a file that is left out, twice, and a refusal."""
    service.post("/predict", content=png(breast()))
    study = [dicom(breast(seed=1)), dicom(breast(seed=1), StudyDate="20200101"), b"no image"]
    for _ in range(2):
        files = [("files", (f"{i}", data)) for i, data in enumerate(study)]
        service.post("/predict/series", files=files)
    service.post("/pixels", content=png(breast()))
    service.post("/predict", content=b"no image")


def asked_of_prometheus(expression: str) -> str:
    """As Grafana puts it, with all of its variables chosen."""
    for name, value in (("$__rate_interval", "1m"), ("$job", ".*"), ("$namespace", ".*")):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize(("title", "expression"), PANELS)
def test_panel_has_data(prometheus: httpx.Client, title: str, expression: str) -> None:
    samples = found(prometheus, asked_of_prometheus(expression))
    if not NOT_HERE.search(expression):
        assert samples
        assert all(sample["value"][1] != "NaN" for sample in samples)


def rules(kind: str) -> list[Any]:
    return [
        pytest.param(rule["expr"], id=rule[kind])
        for group in RULES["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


@pytest.mark.parametrize("expression", rules("record"))
def test_recorded_rule_has_data(prometheus: httpx.Client, expression: str) -> None:
    samples = found(prometheus, expression)
    if not re.search("offset|scores_before", expression):
        assert samples
        assert all(sample["value"][1] != "NaN" for sample in samples)


@pytest.mark.parametrize("expression", rules("alert"))
def test_alert_asks_for_series_that_there_are(prometheus: httpx.Client, expression: str) -> None:
    selectors = [each for each in SELECTOR.findall(expression) if not NOT_HERE.search(each)]
    assert selectors
    for selector in selectors:
        assert found(prometheus, selector), f"{selector} is nowhere"


def test_prometheus_reads_every_rule_without_an_error(prometheus: httpx.Client) -> None:
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    read = [rule for group in groups for rule in group["rules"]]
    assert len(read) == sum(len(group["rules"]) for group in RULES["groups"])
    assert {rule["health"] for rule in read} == {"ok"}
    assert not {rule.get("lastError") for rule in read} - {None, ""}


def test_nothing_fires_but_what_the_load_has_earned(prometheus: httpx.Client) -> None:
    firing = {sample["metric"]["alertname"] for sample in found(prometheus, "ALERTS")}
    # a share of refusals is in the load, and waits its quarter of an hour
    assert firing <= {"MammoseqRefusals"}


def test_dashboard_variables_name_a_metric_that_there_is(prometheus: httpx.Client) -> None:
    queries = [
        variable["query"]["query"]
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    assert queries
    for query in queries:
        metric = re.fullmatch(r"label_values\((\w+), \w+\)", query)
        assert metric is not None
        assert found(prometheus, metric[1])


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        place = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not place & taken, panel["title"]
        assert max(x for x, _ in place) < 24
        taken |= place
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
