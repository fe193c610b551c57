"""The models that are loaded, and which of them a request is for.

Each is a ``Pipeline``; all of them compute on the same threads. Who looks gets the models of that
moment: a request keeps the one that it was given, whatever is swapped in meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.bundle import Bundle, BundleError, load_bundle
from app.imaging.preprocess import PREPROCESSING_VERSION
from app.inference.compute import Compute
from app.inference.pipeline import Pipeline
from app.problems import Refusal


def bundle_to_serve(folder: Path) -> Bundle:
    """Verify and read a bundle that is to be served: at the start, and whenever one is swapped in.

    Raises ``BundleError``.
    """
    bundle = load_bundle(folder)
    if bundle.manifest.preprocessing.version != PREPROCESSING_VERSION:
        raise BundleError(
            f"{bundle.folder} needs preprocessing {bundle.manifest.preprocessing.version}, "
            f"this service has {PREPROCESSING_VERSION}"
        )
    return bundle


class Models:
    """The ``default`` model, and ``others`` that a request may name; stopped once."""

    def __init__(self, default: Pipeline, others: Sequence[Pipeline] = ()) -> None:
        self._all = (default, *others)

    @property
    def default(self) -> Pipeline:
        """What answers unless a request names another."""
        return self._all[0]

    @property
    def all(self) -> tuple[Pipeline, ...]:
        """Every model that is loaded, the default first."""
        return self._all

    @property
    def compute(self) -> Compute:
        """What they compute with."""
        return self.default.compute

    def named(self, name: str, version: str | None = None) -> Pipeline:
        """The model of that name and version; without one the first of that name, so the default
        if it has it. Raises ``Refusal`` (``unknown_model``)."""
        for pipeline in self.all:
            manifest = pipeline.bundle.manifest
            if manifest.name == name and version in (None, manifest.version):
                return pipeline
        raise Refusal("unknown_model", f"There are: {', '.join(p.model for p in self.all)}.")

    def stop(self) -> None:
        """Finish what is under way, then end the threads."""
        self.compute.stop()
