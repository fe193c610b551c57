"""What the cluster gets: all overlays, rendered by kustomize, held against the schemas
of Kubernetes and against what the service and its Dockerfile promise."""

import re
import shutil
from pathlib import Path

import kubernetes_validate
import pytest

from tests.kustomize import COMPONENTS, K8S, OVERLAYS, named, rendered, rendered_at_a_site

REPOSITORY = Path(__file__).resolve().parents[2]
KUBERNETES_VERSION = "1.32"
PORT = 8000
DEVICES = {"cpu": "cpu", "gpu": "cuda", "gpu-mig": "cuda"}
GPUS = {"gpu": "nvidia.com/gpu", "gpu-mig": "nvidia.com/mig-1g.10gb"}
METRICS_PORT = 9000

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None,
    reason="kubectl is not installed: `kubectl kustomize` renders the manifests",
)


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request):
    return request.param


@pytest.fixture(scope="module")
def documents(overlay):
    return rendered(K8S / "overlays" / overlay)


@pytest.fixture(scope="module")
def manifests(documents):
    """By kind; of the policies the one of the service."""
    return by_kind(documents)


def by_kind(documents):
    kept = [each for each in documents if each["metadata"]["name"] != "default-deny"]
    found = {document["kind"]: document for document in kept}
    assert len(found) == len(kept), "two resources of one kind: name them in the tests"
    return found


@pytest.fixture
def pod(manifests):
    return manifests["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    (container,) = pod["containers"]
    return container


def quantity(text):
    """A Kubernetes resource quantity as a number: cores or bytes."""
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text)).groups()
    factors = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9}
    factors |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return float(number) * factors[unit]


def dockerfile(instruction):
    """The arguments of every such instruction, continuation lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    return re.findall(rf"^{instruction} +(.*)$", text, flags=re.MULTILINE)


def test_overlay_contains_every_resource(manifests):
    assert set(manifests) == {
        "Namespace",
        "ServiceAccount",
        "ConfigMap",
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceMonitor",
    }


def fit_the_schemas(documents):
    # Custom resources have schemas that are not part of Kubernetes.
    for manifest in documents:
        if manifest["kind"] not in ("ServiceMonitor", "ScaledObject"):
            kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


def test_resources_fit_the_schemas_strictly(documents):
    fit_the_schemas(documents)


@pytest.mark.parametrize("component", COMPONENTS)
def test_resources_fit_the_schemas_strictly_with_a_component(overlay, component, tmp_path):
    plain = rendered(K8S / "overlays" / overlay)
    with_it = rendered_at_a_site(overlay, [component], tmp_path)
    assert with_it != plain
    fit_the_schemas(with_it)


def test_schema_check_refuses_a_misspelt_field(manifests):
    misspelt = manifests["Service"] | {"spec": manifests["Service"]["spec"] | {"selektor": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, KUBERNETES_VERSION, strict=True)


def test_everything_lives_in_one_namespace(manifests, documents):
    namespace = manifests["Namespace"]["metadata"]
    for manifest in documents:
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == namespace["name"], manifest["kind"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_selector_selects_the_pods(manifests):
    deployment = manifests["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = {
        "Deployment": deployment["selector"]["matchLabels"],
        "Service": manifests["Service"]["spec"]["selector"],
        "PodDisruptionBudget": manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    }
    spreads = deployment["template"]["spec"]["topologySpreadConstraints"]
    selectors |= {
        spread["topologyKey"]: spread["labelSelector"]["matchLabels"] for spread in spreads
    }
    assert {"kubernetes.io/hostname", "topology.kubernetes.io/zone"} <= selectors.keys()
    for name, selector in selectors.items():
        assert selector, name
        assert selector.items() <= labels.items(), name


@pytest.mark.parametrize(
    ("probe", "path"),
    [
        ("startupProbe", "/healthz/ready"),
        ("readinessProbe", "/healthz/ready"),
        ("livenessProbe", "/healthz/live"),
    ],
)
def test_probe_asks_the_right_path_of_the_right_port(container, probe, path):
    request = container[probe]["httpGet"]
    assert request["path"] == path
    assert request["port"] == "metrics"


def test_ports_are_the_same_from_setting_to_service(manifests, container):
    settings = manifests["ConfigMap"]["data"]
    ports = {"http": PORT, "metrics": METRICS_PORT}
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == ports
    for port in manifests["Service"]["spec"]["ports"]:
        assert (port["name"], port["port"]) == (port["targetPort"], ports[port["name"]])
    assert settings["MAMMOSEQ_PORT"] == str(PORT)
    assert settings["MAMMOSEQ_METRICS_PORT"] == str(METRICS_PORT)
    assert dockerfile("EXPOSE") == [str(PORT)]


def test_settings_reach_the_container(manifests, container, overlay):
    settings = manifests["ConfigMap"]
    assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    assert settings["data"]["MAMMOSEQ_HOST"] == "0.0.0.0"
    assert settings["data"]["MAMMOSEQ_DEVICE"] == DEVICES[overlay]
    assert all(name.startswith("MAMMOSEQ_") for name in settings["data"])


def test_service_links_cannot_overwrite_settings(pod):
    # A Service named mammoseq would set MAMMOSEQ_PORT=tcp://... in its pods.
    assert pod["enableServiceLinks"] is False


def test_image_switches_the_telemetry_of_onnx_runtime_off():
    assert any("ORT_DISABLE_TELEMETRY=1" in variables.split() for variables in dockerfile("ENV"))


def test_model_store_is_where_the_image_has_it(manifests):
    store = manifests["ConfigMap"]["data"]["MAMMOSEQ_MODEL_STORE"]
    assert f"model_store {store}" in dockerfile("COPY")


def test_pod_meets_the_restricted_security_standard(pod, container):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["serviceAccountName"] == "mammoseq", "not the namespace's default"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_user_is_the_one_of_the_image(pod):
    context = pod["securityContext"]
    assert dockerfile("USER")[-1] == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert context["runAsUser"] > 0


def test_the_only_writable_place_is_a_bounded_tmp_in_memory(pod, container):
    mounts = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert mounts == [{"name": "tmp", "mountPath": "/tmp"}]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "tmp"]
    assert volume["emptyDir"]["medium"] == "Memory"
    limit = container["resources"]["limits"]["memory"]
    assert quantity(volume["emptyDir"]["sizeLimit"]) <= quantity(limit) / 2


def test_users_and_keys_come_from_one_secret_that_may_be_missing(manifests, pod, container):
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "access"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "access"]
    assert volume["secret"]["optional"] is True
    assert mount["readOnly"] is True
    assert "subPath" not in mount, "a changed Secret would not arrive"
    files = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
    settings = manifests["ConfigMap"]["data"]
    assert files == {settings["MAMMOSEQ_USERS_FILE"], settings["MAMMOSEQ_API_KEYS_FILE"]}
    (secret,) = [
        variable["valueFrom"]["secretKeyRef"]
        for variable in container["env"]
        if variable["name"] == "MAMMOSEQ_SESSION_SECRET"
    ]
    assert secret["name"] == volume["secret"]["secretName"]
    assert secret["optional"] is True


def test_nothing_in_the_manifests_opens_the_service(manifests, container):
    named = manifests["ConfigMap"]["data"].keys() | {one["name"] for one in container["env"]}
    assert "MAMMOSEQ_ACCESS" not in named
    assert not [line for line in dockerfile("ENV") if "MAMMOSEQ_ACCESS" in line]


def test_requests_do_not_exceed_limits(container):
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    assert {"cpu", "memory", "ephemeral-storage"} <= requests.keys()
    assert {"memory", "ephemeral-storage"} <= limits.keys()
    assert requests["memory"] == limits["memory"], "memory must not be overcommitted"
    for resource in requests.keys() & limits.keys():
        assert quantity(requests[resource]) <= quantity(limits[resource]), resource


def test_an_overlay_takes_the_gpu_or_the_slice_that_it_is_for(pod, container, overlay):
    for amounts in container["resources"].values():
        taken = {name: amount for name, amount in amounts.items() if name.startswith("nvidia.com")}
        assert taken == ({GPUS[overlay]: "1"} if overlay in GPUS else {})
    if overlay == "cpu":
        return
    assert any(toleration["key"] == "nvidia.com/gpu" for toleration in pod["tolerations"])


def test_overlays_run_different_images(container, overlay):
    _, tag = container["image"].rsplit(":", 1)
    assert tag.endswith("-cpu" if overlay == "cpu" else "-cuda13")


def test_autoscaler_owns_the_replicas_of_the_deployment(manifests):
    autoscaler = manifests["HorizontalPodAutoscaler"]["spec"]
    deployment = manifests["Deployment"]
    assert autoscaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]
    assert 2 <= autoscaler["minReplicas"] < autoscaler["maxReplicas"]
    (metric,) = autoscaler["metrics"]
    requests = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert metric["resource"]["name"] in requests, "utilisation is relative to the request"


def test_disruption_budget_lets_nodes_be_drained_and_keeps_one_pod(manifests):
    assert manifests["PodDisruptionBudget"]["spec"] == {
        "maxUnavailable": 1,
        "selector": manifests["Deployment"]["spec"]["selector"],
    }
    assert manifests["HorizontalPodAutoscaler"]["spec"]["minReplicas"] > 1


def test_rollout_takes_no_pod_away_before_another_is_there_but_where_a_gpu_would_be_missing(
    manifests, overlay
):
    rolling = manifests["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    spare_needed = {"maxSurge": 1, "maxUnavailable": 0}
    assert rolling == ({"maxSurge": 0, "maxUnavailable": 1} if overlay in GPUS else spare_needed)


def test_nothing_in_the_namespace_is_reached_or_reaches_out_unless_a_policy_says_so(documents):
    denied = named(documents, "NetworkPolicy", "default-deny")["spec"]
    assert denied == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_network_policy_admits_clients_and_prometheus_and_nothing_leaves(manifests):
    policy = manifests["NetworkPolicy"]["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert "egress" not in policy, "an empty list would be another difference at each apply"
    admitted = {}
    for rule in policy["ingress"]:
        (port,) = rule["ports"]
        (peer,) = rule["from"]
        admitted[port["port"]] = peer["namespaceSelector"]["matchLabels"]
    assert admitted == {
        "http": {"mammoseq-client": "true"},
        "metrics": {"kubernetes.io/metadata.name": "monitoring"},
    }


def test_service_monitor_scrapes_the_service(manifests):
    monitor = manifests["ServiceMonitor"]
    service = manifests["Service"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    selector = monitor["spec"]["selector"]["matchLabels"]
    assert selector
    assert selector.items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] == "metrics"
    assert "metrics" in {port["name"] for port in service["spec"]["ports"]}


def test_base_renders_alone():
    assert rendered(K8S / "base")


def rendered_with(component, tmp_path):
    """The cpu overlay with a component, as a site adds it."""
    return by_kind(rendered_at_a_site("cpu", [component], tmp_path))


def test_keda_takes_the_place_of_the_autoscaler(tmp_path):
    manifests = rendered_with("keda", tmp_path)
    assert "HorizontalPodAutoscaler" not in manifests
    scaled = manifests["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
    assert 2 <= scaled["minReplicaCount"] < scaled["maxReplicaCount"]


def test_bundles_can_come_from_a_volume(tmp_path):
    pod = rendered_with("model-volume", tmp_path)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    stores = [each for each in container["env"] if each["name"] == "MAMMOSEQ_MODEL_STORE"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "models"]
    assert stores == [{"name": "MAMMOSEQ_MODEL_STORE", "value": mount["mountPath"]}]
    assert mount["readOnly"]
    (volume,) = [each for each in pod["volumes"] if each["name"] == "models"]
    assert volume["persistentVolumeClaim"]["readOnly"]


def test_audit_log_can_be_on_a_volume_with_a_file_for_each_pod(tmp_path):
    pod = rendered_with("audit-volume", tmp_path)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "audit"]
    assert not mount.get("readOnly")
    names = [each["name"] for each in container["env"]]
    assert names.index("AUDIT_POD") < names.index("MAMMOSEQ_AUDIT_FILE"), "or it is not put in"
    (file,) = [each["value"] for each in container["env"] if each["name"] == "MAMMOSEQ_AUDIT_FILE"]
    assert file == f"{mount['mountPath']}/$(AUDIT_POD).jsonl"
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]


def test_only_signed_bundles_can_be_asked_for(tmp_path):
    pod = rendered_with("signed-models", tmp_path)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (key,) = [each["value"] for each in container["env"] if each["name"] == "MAMMOSEQ_MODEL_KEY"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "model-key"]
    assert mount["readOnly"]
    (volume,) = [each for each in pod["volumes"] if each["name"] == "model-key"]
    (item,) = volume["configMap"]["items"]
    assert key == f"{mount['mountPath']}/{item['path']}"
    assert not volume["configMap"].get("optional"), "without its key no pod must start"


def test_monitoring_renders_alerts_and_a_dashboard_that_grafana_finds():
    monitoring = REPOSITORY / "k8s" / "monitoring"
    found = by_kind(rendered(monitoring))
    assert found.keys() == {"PrometheusRule", "ConfigMap"}
    assert {each["metadata"]["namespace"] for each in found.values()} == {"mammoseq"}
    config_map = found["ConfigMap"]
    kubernetes_validate.validate(config_map, KUBERNETES_VERSION, strict=True)
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config_map["data"]["mammoseq.json"] == (monitoring / "dashboard.json").read_text()
