"""The run folder: what every verb leaves behind, and how a stopped run is found again.

``config.json`` (what was asked), ``metrics.json`` (what was found), pictures, ``report.html``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

CONFIG = "config.json"
METRICS = "metrics.json"


class RunError(Exception):
    """A run folder that cannot be used as asked; the message says why."""


def open_run(folder: Path, config: BaseModel) -> Path:
    """Make ``folder`` for ``config``, or find it again. Returns the folder.

    Raises ``RunError`` if it holds a run of another config: resuming that would mix two runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = config.model_dump(mode="json")
    stored = folder / CONFIG
    if stored.exists():
        held = json.loads(stored.read_text())
        changed = sorted(k for k in wanted.keys() | held.keys() if wanted.get(k) != held.get(k))
        if changed:
            raise RunError(
                f"{folder} holds a run of another config ({', '.join(changed)} differ); name "
                "another run, or remove the folder"
            )
    replace(stored, lambda path: path.write_text(json.dumps(wanted, indent=1)))
    return folder


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    replace(folder / METRICS, lambda path: path.write_text(json.dumps(metrics, indent=1)))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside and rename, so that a killed run never leaves half a file."""
    part = path.with_name(f"part-{path.name}")
    write(part)
    part.replace(path)
