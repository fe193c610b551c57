"""The component that has traces sent to a collector."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

K8S = Path(__file__).resolve().parents[2] / "k8s"

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("tracing")
    shutil.copytree(K8S, folder / "k8s")
    site = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["k8s/overlays/cpu"],
        "components": ["k8s/components/tracing"],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(site))
    rendered = subprocess.run(
        ["kubectl", "kustomize", folder], check=True, capture_output=True, text=True
    )
    return list(yaml.safe_load_all(rendered.stdout))


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def test_pods_are_let_out_to_the_collector_that_they_are_told_of_and_nowhere_else(
    manifests: list[dict[str, Any]],
) -> None:
    deployment = of_kind(manifests, "Deployment")["mammoseq"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each for each in container["env"]}
    url = urlsplit(variables["MAMMOSEQ_TRACES_URL"]["value"])
    policies = of_kind(manifests, "NetworkPolicy")
    assert "egress" not in policies["mammoseq"]["spec"]
    policy = policies["mammoseq-traces"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert (policy["spec"]["policyTypes"], "ingress" in policy["spec"]) == (["Egress"], False)
    collector, dns = policy["spec"]["egress"]
    (peer,) = collector["to"]
    namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert [port["port"] for port in collector["ports"]] == [url.port]
    assert str(url.hostname).split(".")[1] == namespace
    assert {port["port"] for port in dns["ports"]} == {53}


def test_variables_that_others_name_are_there_before_them(
    manifests: list[dict[str, Any]],
) -> None:
    deployment = of_kind(manifests, "Deployment")["mammoseq"]
    names = [
        each["name"] for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    ]
    assert names.index("OTEL_RESOURCE_ATTRIBUTES") > names.index("POD_NAME")
    assert names.index("OTEL_RESOURCE_ATTRIBUTES") > names.index("NODE_NAME")


def test_resources_fit_the_schemas_strictly(manifests: list[dict[str, Any]]) -> None:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "NetworkPolicy"):
            kubernetes_validate.validate(manifest, "1.32", strict=True)
