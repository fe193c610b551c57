"""Fits within the run of another verb: what they share, and running them one after another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import keras
from pydantic import Field, model_validator

from training.config import FitConfig
from training.fit import fit

Backend = Literal["tensorflow", "torch", "jax"]
Changes = Mapping[str, Mapping[str, Any]]  # table -> key -> value
_NAMED_ABOVE = ("run", "backend")


class FitTable(FitConfig):
    """A fit config as a table of another verb's, which names the run folders and the backend."""

    run: Path = Field(Path(), exclude=True)
    backend: Backend | None = Field(None, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _names_no_run(cls, table: Any) -> Any:
        named = [key for key in _NAMED_ABOVE if isinstance(table, dict) and key in table]
        if named:
            raise ValueError(f"{', '.join(named)}: belongs to the top of the file")
        return table


def complete(table: FitTable, run: Path, backend: Backend | None, changes: Changes) -> FitConfig:
    """The config of one fit in the folder ``run``: what ``table`` states, with ``changes``.

    Raises ``ValidationError`` for a change that no fit takes."""
    values = table.model_dump(exclude_unset=True)
    for name, changed in changes.items():
        values[name] = values.get(name, {}) | changed
    return FitConfig.model_validate(values | {"run": run, "backend": backend})


def run_fit(config: FitConfig) -> Path:
    """``fit``, and forget the graphs that it leaves in Keras's memory."""
    folder = fit(config)
    keras.utils.clear_session()
    return folder
