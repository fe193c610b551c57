"""The manifests as a site renders them: an overlay, with components, in a namespace."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.real_parts import require

K8S = Path(__file__).resolve().parents[1] / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
COMPONENTS = sorted(folder.name for folder in (K8S / "components").iterdir())

Manifest = dict[str, Any]


def rendered(folder: Path) -> list[Manifest]:
    """What ``kubectl kustomize`` makes of a folder."""
    done = subprocess.run(
        [require("kubectl"), "kustomize", folder], check=True, capture_output=True, text=True
    )
    return list(yaml.safe_load_all(done.stdout))


def rendered_at_a_site(
    overlay: str, components: Sequence[str], folder: Path, **more: object
) -> list[Manifest]:
    """An overlay as a site uses it: from a kustomization of its own in ``folder``, with components
    and ``more`` fields, such as ``namespace``."""
    shutil.copytree(K8S, folder / "k8s", dirs_exist_ok=True)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"k8s/overlays/{overlay}"],
        "components": [f"k8s/components/{component}" for component in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization | more))
    return rendered(folder)


def named(manifests: list[Manifest], kind: str, name: str = "mammoseq") -> Manifest:
    """The one of that kind and name."""
    (found,) = (
        each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)
    )
    return found
