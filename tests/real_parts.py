"""Programs that the tests run for real: required where CI says so, else skipped if missing."""

from __future__ import annotations

import os
import shutil

import pytest


def require(program: str) -> str:
    """The path of a program; without it the test is skipped, or fails where
    ``MAMMOSEQ_REAL_PARTS=required``."""
    path = shutil.which(program)
    if path is None:
        if os.environ.get("MAMMOSEQ_REAL_PARTS") == "required":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return path
