"""What is found without running anything: weaknesses, secrets, a Dockerfile that is no good."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.real_parts import is_required

REPOSITORY = Path(__file__).resolve().parents[1]
# What other people wrote or machines made: hashes everywhere
NOT_OURS = r"^model_store/|^requirements/|package-lock\.json$|^app/web/vendor/|\.baseline$"


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False
    )


def needs(module: str) -> None:
    if find_spec(module) is None:
        if is_required():
            pytest.fail(f"{module} is not installed")
        pytest.skip(f"{module} is not installed")


def test_code_has_nothing_that_bandit_finds() -> None:
    needs("bandit")
    found = ran(
        sys.executable, "-m", "bandit", "-q", "-c", "pyproject.toml", "-r",
        "app", "export", "training",
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr


def secrets(found: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Where something that looks like a secret is: file, kind and hash. Lines move."""
    return {
        (file, one["type"], one["hashed_secret"])
        for file, listed in found["results"].items()
        for one in listed
    }


def test_no_secret_is_in_the_repository() -> None:
    """But those of .secrets.baseline, at which somebody has looked."""
    needs("detect_secrets")
    scanned = ran(sys.executable, "-m", "detect_secrets", "scan", "--exclude-files", NOT_OURS)
    assert scanned.returncode == 0, scanned.stderr
    known = json.loads((REPOSITORY / ".secrets.baseline").read_text())
    more = secrets(json.loads(scanned.stdout)) - secrets(known)
    assert not more, "what is none, `make secrets` adds to the baseline"


def test_dockerfile_has_nothing_that_hadolint_finds() -> None:
    folder = str(Path(sys.executable).parent)
    hadolint = shutil.which("hadolint", path=folder) or shutil.which("hadolint")
    if hadolint is None:
        if is_required():
            pytest.fail("hadolint is not installed")
        pytest.skip("hadolint is not installed")
    found = ran(hadolint, "Dockerfile")
    assert found.returncode == 0, found.stdout + found.stderr
