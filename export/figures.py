"""What a run measured, as data that the page draws -> a bundle's ``figures.json``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from app.bundle import FIGURES, MODEL_CARD, Bundle, load_bundle, new_version, seal
from app.figures import Figures
from export.card import with_gate


def add_figures(source: Path, target: Path, evaluation: Path) -> Bundle:
    """Write ``target``, ``<store>/<name>/<version>``: the bundle ``source`` with the figures of
    ``evaluation``, the folder of a ``training evaluate`` of it. Raises ``ValueError`` for an
    evaluation of another bundle, and as ``copy_figures`` and ``new_version``."""
    bundle = load_bundle(source)
    evaluated = json.loads((evaluation / "metrics.json").read_text())["bundle"]
    if evaluated["sha256"] != bundle.sha256:
        raise ValueError(
            f"{evaluation} is of {evaluated['name']} {evaluated['version']}, manifest "
            f"{evaluated['sha256'][:12]}, not of {source}"
        )
    manifest = {
        **bundle.manifest.model_dump(exclude={"files"}),
        "name": target.parent.name,
        "version": target.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with new_version(target) as work:
        for name in bundle.manifest.files:
            (work / name).write_bytes((source / name).read_bytes())
        copy_figures(evaluation, work)
        card = (work / MODEL_CARD).read_text()
        (work / MODEL_CARD).write_text(with_gate(card, manifest))
        seal(work, manifest)
    return load_bundle(target)


def has_figures(run: Path) -> bool:
    return (run / FIGURES).is_file()


def copy_figures(run: Path, bundle: Path) -> None:
    """Raises ``FileNotFoundError``, and ``ValueError`` for figures that are none."""
    content = (run / FIGURES).read_bytes()
    try:
        Figures.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"{run / FIGURES} is not valid: {error.errors()[0]['msg']}") from None
    (bundle / FIGURES).write_bytes(content)
