"""What keeps the service from starting: a list or setting of who may come in that is not right."""

from __future__ import annotations


class AccessError(Exception):
    """Its message names a setting and a line, never what is in it."""
