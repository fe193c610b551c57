"""What scales the service, where it is not its CPU: the questions that KEDA and the Prometheus
adapter ask, put to a real Prometheus that scrapes the service while requests are under way."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

from tests.kustomize import K8S, Manifest, named, rendered_at_a_site
from tests.prometheus import found, scraping
from tests.serving import free_port, serving

UNDER_WAY = 5
WITHIN_SECONDS = 120
PODS = {"namespace": "mammoseq", "pod": "mammoseq-7d9f-x"}
HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
METRIC = "mammoseq_in_flight_requests"


@pytest.fixture(scope="module")
def prometheus(
    bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """While uploads are under way that have not come to their end."""
    folder = tmp_path_factory.mktemp("scaled")
    port = free_port()
    with (
        serving(bundle_folder, folder, metrics_port=port, processes=2, workers=1) as service,
        scraping(port, folder, **PODS) as client,
        ExitStack() as uploads,
    ):
        address = (service.client.base_url.host, service.client.base_url.port or 80)
        for _ in range(UNDER_WAY):
            upload = uploads.enter_context(socket.create_connection(address, timeout=60))
            upload.sendall(HEAD)
        deadline = time.monotonic() + WITHIN_SECONDS
        while not found(client, f"{METRIC} == {UNDER_WAY}"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield client


@pytest.fixture
def scaled(tmp_path: Path) -> Manifest:
    return named(rendered_at_a_site("cpu", ["keda"], tmp_path), "ScaledObject")["spec"]


@pytest.fixture
def metrics(tmp_path: Path) -> list[Manifest]:
    manifests = rendered_at_a_site("cpu", ["prometheus-adapter"], tmp_path)
    told: list[Manifest] = named(manifests, "HorizontalPodAutoscaler")["spec"]["metrics"]
    return told


def test_keda_is_told_how_many_requests_are_under_way(
    prometheus: httpx.Client, scaled: Manifest
) -> None:
    (trigger,) = scaled["triggers"]
    assert trigger["metricType"] == "AverageValue", "the question is about all pods together"
    (sample,) = found(prometheus, trigger["metadata"]["query"])
    assert 0 < float(sample["value"][1]) <= UNDER_WAY


def test_the_adapters_rule_tells_the_same_of_each_pod(prometheus: httpx.Client) -> None:
    rules = yaml.safe_load((K8S / "components" / "prometheus-adapter" / "rules.yaml").read_text())
    (rule,) = rules["rules"]
    (series,) = found(prometheus, rule["seriesQuery"])
    assert series["metric"]["__name__"] == METRIC
    for label, told in rule["resources"]["overrides"].items():
        assert series["metric"][label] == PODS[told["resource"]]
    # As the adapter fills it in for the pods of an autoscaler
    question = rule["metricsQuery"]
    for name, value in (
        ("Series", METRIC),
        ("LabelMatchers", f'namespace="{PODS["namespace"]}",pod=~"{PODS["pod"]}|another"'),
        ("GroupBy", "pod"),
    ):
        question = question.replace(f"<<.{name}>>", value)
    (sample,) = found(prometheus, question)
    assert sample["metric"] == {"pod": PODS["pod"]}
    assert 0 < float(sample["value"][1]) <= UNDER_WAY


def test_the_autoscaler_asks_for_what_the_rule_offers_and_for_cpu(
    metrics: list[Manifest], scaled: Manifest
) -> None:
    pods, cpu = metrics
    assert cpu["resource"]["name"] == "cpu"
    assert pods["pods"]["metric"]["name"] == METRIC
    (trigger,) = scaled["triggers"]
    assert pods["pods"]["target"] == {
        "type": "AverageValue",
        "averageValue": trigger["metadata"]["threshold"],
    }


def test_more_is_wanted_than_a_pod_works_on_at_a_time(scaled: Manifest, tmp_path: Path) -> None:
    """Or a pod that is busy, and nobody waits, would call for another."""
    manifests = rendered_at_a_site("cpu", [], tmp_path)
    (container,) = named(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    (trigger,) = scaled["triggers"]
    assert float(trigger["metadata"]["threshold"]) > float(
        container["resources"]["requests"]["cpu"]
    )
