"""A limit of CPU time as a container has it: a cgroup with a quota. Needs root."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real_parts import is_required

_CGROUPS = Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS = 100_000


@contextmanager
def cpu_quota(cores: float) -> Iterator[Path]:
    """A cgroup that may use so many cores; a process enters it by writing its id to the file that
    is yielded. It must be empty at the end."""
    folder, files = _made()
    quota = round(cores * _PERIOD_MICROSECONDS)
    try:
        for name, text in files:
            (folder / name).write_text(text.format(quota=quota, period=_PERIOD_MICROSECONDS))
        yield folder / "cgroup.procs"
    finally:
        folder.rmdir()


def _made() -> tuple[Path, list[tuple[str, str]]]:
    """A new cgroup, and the files of its quota with what is to be in them, version 1 or 2."""
    version_2 = (_CGROUPS / "cgroup.controllers").exists()
    root = _CGROUPS if version_2 else _CGROUPS / "cpu"
    folder = root / f"mammoseq-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        if version_2:
            (root / "cgroup.subtree_control").write_text("+cpu")
        folder.mkdir()
    except OSError as error:
        message = f"no cgroup can be made: {error}"
        if is_required():
            pytest.fail(message)
        pytest.skip(message)
    if version_2:
        return folder, [("cpu.max", "{quota} {period}")]
    return folder, [("cpu.cfs_period_us", "{period}"), ("cpu.cfs_quota_us", "{quota}")]
