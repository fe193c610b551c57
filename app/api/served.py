"""Which models are in service, by name and version."""

from __future__ import annotations

from fastapi import Request

from app.inference.pipeline import Pipeline
from app.problems import Refusal


def pipeline_of(request: Request, name: str, version: str | None = None) -> Pipeline:
    """The pipeline of a model; of whatever version is in service, unless one is named.

    Raises ``Refusal`` (``not_found``).
    """
    pipeline: Pipeline = request.app.state.pipeline
    manifest = pipeline.bundle.manifest
    if name != manifest.name or version not in (None, manifest.version):
        raise Refusal("not_found", "Another model is in service; GET /v1/models names it.")
    return pipeline
