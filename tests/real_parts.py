"""Programs that tests drive for real: a PACS, DICOM tools. Debian packages, not from PyPI."""

from __future__ import annotations

import os
import shutil

import pytest


def require(program: str) -> str:
    """Path of ``program``. Without it the test is skipped, or fails where
    ``MAMMOSEQ_REAL_PARTS=required``, as in CI."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if path is None:
        message = f"{program} is not installed"
        if os.environ.get("MAMMOSEQ_REAL_PARTS") == "required":
            pytest.fail(message)
        pytest.skip(message)
    return path
