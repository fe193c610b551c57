"""What is in ``k8s/``, and what docs/deploy.md has an administrator type, on a real API server:
every overlay with every component is taken, kept as it was meant, and does not change when it is
applied again; and what is wrong is refused.

``make cluster-check``; not among the tests that always run: the server takes minutes to compile.
"""

from __future__ import annotations

import copy
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.api_server import Cluster, api_server
from tests.cluster.served import as_served, make_known
from tests.kustomize import COMPONENTS, K8S, OVERLAYS, named, rendered, rendered_at_a_site

# A site has one of them
AUTOSCALERS = ("keda", "prometheus-adapter")
OTHERS = tuple(name for name in COMPONENTS if name not in AUTOSCALERS)
COMBINATIONS = [
    (overlay, components)
    for overlay in OVERLAYS
    for components in [
        (),
        *((name,) for name in COMPONENTS),
        *((*OTHERS, autoscaler) for autoscaler in AUTOSCALERS),
    ]
]
# Without components
ALONE = ("base", "kserve", "monitoring")
Manifests = list[dict[str, Any]]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with api_server(Path(os.environ["KUBE_APISERVER"]), folder) as running:
        site = rendered_at_a_site("cpu", ["keda"], tmp_path_factory.mktemp("site"))
        alone = [manifest for folder in ALONE for manifest in rendered(K8S / folder)]
        make_known(running, site + alone)
        yield running


def site(
    cluster: Cluster, overlay: str, components: tuple[str, ...], folder: Path, namespace: str
) -> Manifests:
    found = rendered_at_a_site(overlay, components, folder, namespace=namespace)
    return as_served(cluster, found)


def revisions(kept: Manifests) -> dict[tuple[str, str], str]:
    return {
        (each["kind"], each["metadata"]["name"]): each["metadata"]["resourceVersion"]
        for each in kept
    }


def assert_holds(kept: Any, meant: Any, where: str = "") -> None:
    """All that was meant is kept; the server adds what it has defaults for."""
    if isinstance(meant, dict):
        for name, value in meant.items():
            assert name in kept, f"{where}.{name} is lost"
            assert_holds(kept[name], value, f"{where}.{name}")
    elif isinstance(meant, list):
        assert len(kept) == len(meant), where
        for number, (one, other) in enumerate(zip(kept, meant, strict=True)):
            assert_holds(one, other, f"{where}[{number}]")
    else:
        assert kept == meant, where


@pytest.mark.parametrize(
    ("overlay", "components"),
    [pytest.param(*one, id="+".join((one[0], *one[1]))) for one in COMBINATIONS],
)
def test_overlay_is_kept_as_it_was_meant_and_does_not_change_again(
    cluster: Cluster, tmp_path: Path, overlay: str, components: tuple[str, ...]
) -> None:
    namespace = f"site-{COMBINATIONS.index((overlay, components))}"
    meant = site(cluster, overlay, components, tmp_path, namespace)
    kept = cluster.applied(meant)
    assert len(kept) == len(meant)
    for one, other in zip(kept, meant, strict=True):
        assert_holds(one, other, f"{other['kind']} {other['metadata']['name']}")
    assert revisions(cluster.applied(meant)) == revisions(kept)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pod_of_the_deployment_is_admitted(cluster: Cluster, tmp_path: Path, overlay: str) -> None:
    """As the ReplicaSet's controller would create it, which does not run here."""
    namespace = f"pod-{overlay}"
    meant = site(cluster, overlay, OTHERS, tmp_path, namespace)
    cluster.applied(meant)
    template = named(meant, "Deployment")["spec"]["template"]
    pod = template | {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"] | {"namespace": namespace, "name": "one"},
    }
    cluster.asked("create", "--dry-run=server", "--filename=-", given=pod)


@pytest.mark.parametrize("folder", ALONE)
def test_what_is_beside_the_overlays_is_taken(cluster: Cluster, folder: str) -> None:
    meant = as_served(cluster, rendered(K8S / folder))
    kept = cluster.applied(meant)
    for one, other in zip(kept, meant, strict=True):
        assert_holds(one, other, f"{other['kind']} {other['metadata']['name']}")
    assert revisions(cluster.applied(meant)) == revisions(kept)


def test_kubectl_apply_as_in_the_docs_is_the_same_twice(cluster: Cluster, tmp_path: Path) -> None:
    meant = site(cluster, "cpu", (), tmp_path, "by-the-docs")
    first = cluster.asked("apply", "--filename=-", given=meant)
    assert first.count(" created") == len(meant)
    again = cluster.asked("apply", "--filename=-", given=meant)
    assert again.count(" unchanged") == len(meant), again


def test_upgrade_rolls_the_pods_and_a_rollback_brings_the_old_ones_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    def running(manifests: Manifests) -> dict[str, Any]:
        spec: dict[str, Any] = named(cluster.applied(manifests), "Deployment")["spec"]["template"]
        return spec

    old = site(cluster, "cpu", (), tmp_path, "upgraded")
    upgrade = {"images": [{"name": "mammoseq", "newTag": "0.6.0-cpu"}]}
    new = as_served(
        cluster, rendered_at_a_site("cpu", [], tmp_path, namespace="upgraded", **upgrade)
    )
    before, after = running(old), running(new)
    image = after["spec"]["containers"][0]["image"]
    assert image.endswith(":0.6.0-cpu")
    assert image != before["spec"]["containers"][0]["image"]
    assert running(old) == before


def test_changed_setting_rolls_the_pods(cluster: Cluster, tmp_path: Path) -> None:
    def settings_of_the_pods() -> str:
        meant = site(cluster, "cpu", (), tmp_path, "set")
        container = named(cluster.applied(meant), "Deployment")["spec"]["template"]["spec"]
        name: str = container["containers"][0]["envFrom"][0]["configMapRef"]["name"]
        return name

    before = settings_of_the_pods()
    file = tmp_path / "k8s" / "base" / "settings.env"
    changed = file.read_text() + "MAMMOSEQ_RATE_LIMIT=60\n"

    def site_again() -> Manifests:
        file.write_text(changed)
        return as_served(cluster, rendered(tmp_path))

    meant = site_again()
    template = named(cluster.applied(meant), "Deployment")["spec"]["template"]["spec"]
    assert template["containers"][0]["envFrom"][0]["configMapRef"]["name"] != before


def blocks(document: str, language: str) -> list[str]:
    text = (K8S.parent / "docs" / document).read_text()
    fenced = rf"^( *)```{language}\n(.*?)^ *```$"
    return [
        re.sub(rf"^{indent}", "", block, flags=re.MULTILINE)
        for indent, block in re.findall(fenced, text, re.MULTILINE | re.DOTALL)
    ]


def test_policy_of_the_bridge_in_the_docs_is_taken(cluster: Cluster) -> None:
    (block,) = (block for block in blocks("bridge.md", "yaml") if "kind: NetworkPolicy" in block)
    cluster.applied(as_served(cluster, rendered(K8S / "base")))
    policy = yaml.safe_load(block)
    (kept,) = cluster.applied([policy])
    assert_holds(kept, policy)


def test_commands_of_the_docs_that_need_no_node_work(cluster: Cluster, tmp_path: Path) -> None:
    """Secrets, the claim of the audit log, the namespace of clients."""
    cluster.applied(as_served(cluster, rendered(K8S / "base")))
    cluster.asked("create", "namespace", "clinic")
    (tmp_path / "users").write_text("ana:hash\n")
    (tmp_path / "api-keys").write_text("pacs:hash\n")
    wanted = (
        "create secret generic mammoseq-access",
        "create secret docker-registry",
        "kind: PersistentVolumeClaim",
        "mammoseq-client=true",
    )
    for part in wanted:
        (block,) = (block for block in blocks("deploy.md", "sh") if part in block)
        typed = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.replace("YOUR-CLIENTS", "clinic")],
            cwd=tmp_path,
            env=cluster.environment | {"PASSWORD": tmp_path.name},
            capture_output=True,
            text=True,
            check=False,
        )
        assert typed.returncode == 0, typed.stderr
    secret = cluster.asked("-n", "mammoseq", "get", "secret", "mammoseq-access", "--output=yaml")
    for key in ("users:", "api-keys:", "session-secret:"):
        assert key in secret


Change = Callable[[Manifests], None]


def deployment(change: Callable[[Any, Any], None]) -> Change:
    """A change of the pod and its container."""

    def changed(manifests: Manifests) -> None:
        pod = named(manifests, "Deployment")["spec"]["template"]["spec"]
        change(pod, pod["containers"][0])

    return changed


def of(kind: str, change: Callable[[Any], None]) -> Change:
    return lambda manifests: change(named(manifests, kind)["spec"])


WRONG: dict[str, tuple[Change, str]] = {
    "a selector that selects other pods": (
        of("Deployment", lambda spec: spec["selector"].update(matchLabels={"app": "other"})),
        "`selector` does not match template `labels`",
    ),
    "a request above its limit": (
        deployment(lambda _, container: container["resources"]["requests"].update(memory="3Gi")),
        "must be less than or equal to memory limit",
    ),
    "a volume that there is not": (
        deployment(lambda _, container: container["volumeMounts"][0].update(name="tmpp")),
        'Not found: "tmpp"',
    ),
    "a probe with a misspelt field": (
        deployment(lambda _, container: container["livenessProbe"].update(periodSecond=5)),
        "periodSecond",
    ),
    "a probe of nothing": (
        deployment(lambda _, container: container["readinessProbe"].pop("httpGet")),
        "must specify a handler type",
    ),
    "a probe with a time below zero": (
        deployment(lambda _, container: container["startupProbe"].update(periodSeconds=-1)),
        "must be greater than or equal to 0",
    ),
    "a variable from a field that there is not": (
        deployment(
            lambda _, container: container["env"].append(
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.nome"}}}
            )
        ),
        "metadata.nome",
    ),
    "more replicas at least than at most": (
        of("HorizontalPodAutoscaler", lambda spec: spec.update(minReplicas=9)),
        "must be greater than or equal to `minReplicas`",
    ),
    "a budget of two kinds": (
        of("PodDisruptionBudget", lambda spec: spec.update(minAvailable=1)),
        "cannot be both set",
    ),
    "a policy for a protocol that there is not": (
        of(
            "NetworkPolicy",
            lambda spec: spec["ingress"][0]["ports"][0].update(protocol="HTTP"),
        ),
        'Unsupported value: "HTTP"',
    ),
    "a service with two ports of one name": (
        of("Service", lambda spec: spec["ports"][1].update(name="http")),
        "Duplicate value",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_refused(cluster: Cluster, tmp_path: Path, wrong: str) -> None:
    change, complaint = WRONG[wrong]
    right = site(cluster, "cpu", (), tmp_path, "refused")
    cluster.applied([each for each in right if each["kind"] in ("Namespace", "ServiceAccount")])
    options = ("apply", "--server-side", "--dry-run=server", "--filename=-")
    cluster.asked(*options, given=right)
    changed = copy.deepcopy(right)
    change(changed)
    assert changed != right
    refused = cluster.kubectl(*options, given=changed)
    assert refused.returncode != 0
    assert complaint in refused.stderr
