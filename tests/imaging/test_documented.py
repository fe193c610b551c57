"""The tables of docs/dicom.md: every test that they name exists, and no case is left out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.imaging.stored import TRANSFER_SYNTAXES
from tests.imaging import test_presentation

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "docs" / "dicom.md").read_text()
NAMED = re.findall(r"`(test_\w+(?:\[[^\]]+\])?)`", TEXT)


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """Every test of this folder, with the names of its cases and without."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "tests/imaging"]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    tests = {line.split("::", 1)[1] for line in listed.stdout.splitlines() if "::" in line}
    return tests | {test.split("[")[0] for test in tests}


def test_every_test_that_the_tables_name_exists(collected: set[str]) -> None:
    assert len(NAMED) > 80
    assert not set(NAMED) - collected


def test_every_case_that_is_compared_with_dcmtk_is_in_the_table() -> None:
    test = test_presentation.test_greys_are_those_that_dcmtk_shows.__name__
    assert {f"{test}[{case}]" for case in test_presentation.CASES} <= set(NAMED)


def test_every_transfer_syntax_that_is_read_is_in_the_table() -> None:
    assert set(re.findall(r"\| (1\.2\.840\.[\d.]+) \|", TEXT)) == set(TRANSFER_SYNTAXES)
