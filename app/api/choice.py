"""Which model a request is for: chosen once, and kept whatever is swapped in meanwhile.

All that a request does, reads ``request.state.pipeline``.
"""

from __future__ import annotations

from fastapi import Request

from app.inference.models import Models


def choose(request: Request, model: str | None) -> None:
    """Set ``request.state.pipeline``: the one that is named, as ``name`` or ``name/version``, else
    the default. Raises ``Refusal`` (``unknown_model``)."""
    models: Models = request.app.state.models
    if model is None:
        request.state.pipeline = models.default
    else:
        name, _, version = model.partition("/")
        request.state.pipeline = models.named(name, version or None)
