"""Which model a request is for: chosen once, and kept whatever is swapped in meanwhile.

All that a request does, reads ``request.state.pipeline``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fastapi import Request

from app.api.audit import Noted
from app.api.options import Options, Wanted, wanted_of
from app.inference.models import Models
from app.inference.pipeline import Pipeline
from app.problems import Refusal
from app.settings import Settings


def choose(request: Request, model: str | None) -> None:
    """Set ``request.state.pipeline``: the one that is named, as ``name`` or ``name/version``, else
    the default. Raises ``Refusal`` (``unknown_model``)."""
    models: Models = request.app.state.models
    if model is None:
        request.state.pipeline = models.default
    else:
        name, _, version = model.partition("/")
        request.state.pipeline = models.named(name, version or None)


def settled(
    request: Request, options: Options, wanted: Wanted, files: Sequence[bytes]
) -> tuple[Pipeline, Wanted]:
    """The model that answers, and what is wanted of it, now that the files are known: the canary
    gets its share of requests that name no model. Computes: call it on a worker."""
    models: Models = request.app.state.models
    settings: Settings = request.app.state.settings
    chosen: Pipeline = request.state.pipeline
    canary = models.lineup.canary
    if canary is None or canary is chosen or options.model is not None:
        return chosen, wanted
    if not falls_to_canary(files, settings.canary_share):
        return chosen, wanted
    try:
        wanted_of_canary = wanted_of(request, options, canary)
    except Refusal:  # it has no such operating point or class
        return chosen, wanted
    request.state.pipeline = canary
    request.state.model = canary.model
    noted: Noted = request.state.noted
    noted.bundle = canary.bundle
    return canary, wanted_of_canary


def falls_to_canary(files: Sequence[bytes], share: float) -> bool:
    """Whether a request with these files is among the ``share`` that the canary answers.

    The same files always are, in any order. Of a study that comes again with a few more files it
    is likely to stay the same: the file with the least hash decides.
    """
    least = min(hashlib.sha256(data).digest() for data in files)
    # Hashed again: the least of many hashes is small
    place = int.from_bytes(hashlib.sha256(least).digest()[:8]) / 2**64
    return place < share
