"""The service under KServe: the pod of the Deployment in an InferenceService, whose definition
Kubernetes does not have. What is in it of a pod is held against the schema of pods."""

import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.k8s.test_manifests import DEVICES, KUBERNETES_VERSION, METRICS_PORT, PORT

REPOSITORY = Path(__file__).resolve().parents[2]
# Of a predictor, what is not of its pod and is used here (KServe 0.21, V1beta1PredictorSpec)
OF_KSERVE = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "deploymentStrategy"}

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None,
    reason="kubectl is not installed: `kubectl kustomize` renders the manifests",
)


def rendered(folder):
    told = subprocess.run(
        ["kubectl", "kustomize", REPOSITORY / "k8s" / folder],
        check=True,
        capture_output=True,
        text=True,
    )
    return {document["kind"]: document for document in yaml.safe_load_all(told.stdout)}


@pytest.fixture(scope="module")
def manifests():
    return rendered("kserve")


@pytest.fixture(scope="module")
def deployment():
    """What the overlay for CPUs runs."""
    return rendered("overlays/cpu")


@pytest.fixture
def predictor(manifests):
    return manifests["InferenceService"]["spec"]["predictor"]


@pytest.fixture
def pod(predictor):
    return {field: value for field, value in predictor.items() if field not in OF_KSERVE}


@pytest.fixture
def container(pod):
    (container,) = pod["containers"]
    return container


def test_what_kserve_makes_itself_is_left_out(manifests):
    assert set(manifests) == {
        "Namespace", "ServiceAccount", "ConfigMap", "InferenceService", "Service",
        "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor",
    }  # fmt: skip


def test_the_pod_fits_the_schema_strictly(pod):
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mammoseq"}, "spec": pod}
    kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
    misspelt = manifest | {"spec": pod | {"minReplica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, KUBERNETES_VERSION, strict=True)


def test_everything_else_fits_the_schemas_strictly(manifests):
    for kind, manifest in manifests.items():
        if kind not in ("InferenceService", "ServiceMonitor"):
            kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


def test_the_pod_is_that_of_the_deployment_but_for_its_probes_and_the_protocol(
    pod, container, deployment
):
    base = deployment["Deployment"]["spec"]["template"]["spec"]
    (expected,) = base["containers"]
    assert pod | {"containers": []} == base | {"containers": []}
    assert container["name"] == "kserve-container"
    ours = {"startupProbe", "readinessProbe", "livenessProbe", "name", "env", "envFrom"}
    for field in (expected.keys() | container.keys()) - ours:
        assert container[field] == expected[field], field
    assert [one for one in container["env"] if one["name"] != "PROTOCOL"] == expected["env"]


def test_it_is_known_to_speak_version_2_of_the_protocol(container):
    assert {"name": "PROTOCOL", "value": "v2"} in container["env"]


def test_requests_go_to_the_first_port(container):
    ports = [(port["name"], port["containerPort"]) for port in container["ports"]]
    assert ports == [("http", PORT), ("metrics", METRICS_PORT)]


def test_probes_ask_by_the_protocol_with_the_patience_of_the_deployment(container, deployment):
    (expected,) = deployment["Deployment"]["spec"]["template"]["spec"]["containers"]
    paths = {
        "startupProbe": "/v2/health/ready",
        "readinessProbe": "/v2/health/ready",
        "livenessProbe": "/v2/health/live",
    }
    for probe, path in paths.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
        assert container[probe] | {"httpGet": None} == expected[probe] | {"httpGet": None}


def test_settings_reach_the_container_under_the_name_with_the_hash(manifests, container):
    settings = manifests["ConfigMap"]
    assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    assert settings["metadata"]["name"] != "mammoseq-settings"
    assert settings["data"]["MAMMOSEQ_DEVICE"] == DEVICES["cpu"]


def test_replicas_are_those_of_the_autoscaler_of_the_deployment(predictor, deployment):
    expected = deployment["HorizontalPodAutoscaler"]["spec"]
    (metric,) = expected["metrics"]
    assert predictor["minReplicas"] == expected["minReplicas"]
    assert predictor["maxReplicas"] == expected["maxReplicas"]
    assert predictor["scaleMetric"] == metric["resource"]["name"]
    assert predictor["scaleTarget"] == metric["resource"]["target"]["averageUtilization"]
    assert predictor["deploymentStrategy"] == deployment["Deployment"]["spec"]["strategy"]


def test_its_label_is_what_the_others_select_by(manifests):
    metadata = manifests["InferenceService"]["metadata"]
    assert metadata["namespace"] == manifests["Namespace"]["metadata"]["name"]
    assert metadata["annotations"]["serving.kserve.io/deploymentMode"] == "RawDeployment"
    for selector in (
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= metadata["labels"].items()
