"""Every expression of the dashboard and of the rules, put to a real Prometheus that scrapes a real
service under a little load."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
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
# What a service of some seconds without a GPU, a bridge or a shadow does not have
NOT_HERE = re.compile(r"DCGM_|week_before|scores_before|mammoseq_bridge_|mammoseq_shadow_")
SELECTOR = re.compile(r"\b(?:mammoseq[a-z0-9_:]*|up|process_[a-z_]+)(?:\{[^}]*\})?")
WITHIN_SECONDS = 60


@dataclass(frozen=True)
class Watched:
    """A service under a little load, and who watches it."""

    service: Service
    prometheus: httpx.Client

    def wait_for(self, expression: str) -> None:
        """Until the expression has data, and no share of nothing: a rate needs two scrapes."""
        deadline = time.monotonic() + WITHIN_SECONDS
        while not (values := self.values(expression)) or "NaN" in values:
            assert time.monotonic() < deadline, f"{expression} has {values}"
            load(self.service)

    def values(self, expression: str) -> list[str]:
        return [sample["value"][1] for sample in found(self.prometheus, expression)]


@pytest.fixture(scope="module")
def watched(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("monitored")
    port = free_port()
    often = {"groups": [group | {"interval": "1s"} for group in RULES["groups"]]}
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(often))
    with (
        serving(bundle_folder, folder, metrics_port=port, processes=2, workers=1) as service,
        scraping(port, folder, rules) as client,
    ):
        watched = Watched(service, client)
        watched.wait_for("mammoseq:score_drift_from_validation:psi7d > 0")  # the last of the rules
        yield watched


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
def test_panel_has_data(watched: Watched, title: str, expression: str) -> None:
    asked = asked_of_prometheus(expression)
    if NOT_HERE.search(expression):
        found(watched.prometheus, asked)  # is well-formed
    else:
        watched.wait_for(asked)


def rules(kind: str) -> list[Any]:
    return [
        pytest.param(rule["expr"], id=rule[kind])
        for group in RULES["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


@pytest.mark.parametrize("expression", rules("record"))
def test_recorded_rule_has_data(watched: Watched, expression: str) -> None:
    if re.search("offset|scores_before", expression):
        found(watched.prometheus, expression)
    else:
        watched.wait_for(expression)


@pytest.mark.parametrize("expression", rules("alert"))
def test_alert_asks_for_series_that_there_are(watched: Watched, expression: str) -> None:
    asked = SELECTOR.findall(expression)
    selectors = [each for each in asked if not NOT_HERE.search(each)]
    assert asked
    for selector in selectors:
        watched.wait_for(selector)


def test_prometheus_reads_every_rule_without_an_error(watched: Watched) -> None:
    groups = watched.prometheus.get("/api/v1/rules").json()["data"]["groups"]
    read = [rule for group in groups for rule in group["rules"]]
    assert len(read) == sum(len(group["rules"]) for group in RULES["groups"])
    assert {rule["health"] for rule in read} == {"ok"}
    assert not {rule.get("lastError") for rule in read} - {None, ""}


def test_nothing_fires_but_what_the_load_has_earned(watched: Watched) -> None:
    firing = {sample["metric"]["alertname"] for sample in found(watched.prometheus, "ALERTS")}
    # a share of refusals is in the load, and waits its quarter of an hour
    assert firing <= {"MammoseqRefusals"}


def test_dashboard_variables_name_a_metric_that_there_is(watched: Watched) -> None:
    queries = [
        variable["query"]["query"]
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    assert queries
    for query in queries:
        metric = re.fullmatch(r"label_values\((\w+), \w+\)", query)
        assert metric is not None
        assert found(watched.prometheus, metric[1])


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
