"""libfaketime, which gives a process a clock of its own: Debian package ``faketime``."""

from __future__ import annotations

from pathlib import Path

from tests.real_parts import require


def preloaded(**settings: str) -> dict[str, str]:
    """The environment of a process with such a clock; ``settings`` are libfaketime's, such as
    ``FAKETIME="+0 x60"``."""
    require("faketime")
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {"LD_PRELOAD": str(library), **settings}
