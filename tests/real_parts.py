"""Programs that tests drive for real: a PACS, DICOM tools, Prometheus. Debian packages."""

from __future__ import annotations

import os
import shutil

import pytest


def is_required() -> bool:
    """Whether a test without its real parts fails, as in CI, and is not skipped."""
    return os.environ.get("MAMMOSEQ_REAL_PARTS") == "required"


def require(program: str) -> str:
    """Path of ``program``. Without it the test is skipped, or fails where
    ``MAMMOSEQ_REAL_PARTS=required``, as in CI."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if path is None:
        message = f"{program} is not installed"
        if is_required():
            pytest.fail(message)
        pytest.skip(message)
    return path
