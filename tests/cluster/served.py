"""Manifests in the form that a given API server takes: older versions of an API where it is too old
for ours, and custom resources that it has not heard of made known to it."""

from __future__ import annotations

from typing import Any

from tests.cluster.api_server import Cluster

# Alike in all that we use; the newer ones came with Kubernetes 1.23 and 1.21
OLDER = {"autoscaling/v2": "autoscaling/v2beta2", "policy/v1": "policy/v1beta1"}


def as_served(cluster: Cluster, manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    versions = set(cluster.asked("api-versions").split())
    return [
        manifest
        if (version := manifest["apiVersion"]) in versions or version not in OLDER
        else manifest | {"apiVersion": OLDER[version]}
        for manifest in manifests
    ]


def make_known(cluster: Cluster, manifests: list[dict[str, Any]]) -> None:
    """Define the custom resources among ``manifests``. Their ``spec`` may hold anything: the
    operators' own definitions are not at hand, so of these only the envelope is checked."""
    kinds = {(each["apiVersion"], each["kind"]) for each in manifests}
    custom = sorted(one for one in kinds if _is_custom(one[0]))
    if not custom:
        return
    definitions = [_definition(version, kind) for version, kind in custom]
    cluster.asked("apply", "--server-side", "--filename=-", given=definitions)
    names = [f"customresourcedefinition/{each['metadata']['name']}" for each in definitions]
    cluster.asked("wait", "--for=condition=Established", "--timeout=60s", *names)


def _is_custom(version: str) -> bool:
    group, _, _ = version.rpartition("/")
    return "." in group and not group.endswith(".k8s.io")


def _definition(api_version: str, kind: str) -> dict[str, Any]:
    group, _, version = api_version.partition("/")
    plural = f"{kind.lower()}s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything}, "required": ["spec"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }
