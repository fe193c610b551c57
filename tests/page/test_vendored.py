"""What the page has from npm is what its README says it is."""

from __future__ import annotations

import json
import re

import pytest

from docs.vendored import VENDOR, sha512

ROWS = re.findall(
    r"^\| `(\S+)` \| (\S+) \| (\S+) \| .* \| `([0-9a-f]{128})` \|$",
    (VENDOR / "README.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize(("file", "package", "version", "recorded"), ROWS, ids=lambda row: row[:12])
def test_vendored_file_is_the_recorded_one(
    file: str, package: str, version: str, recorded: str
) -> None:
    assert sha512(VENDOR / file) == recorded
    assert "Permission is hereby granted" in (VENDOR / f"{package}.LICENSE").read_text()
    assert json.loads((VENDOR / "package.json").read_text())["dependencies"][package] == version


def test_every_vendored_file_is_recorded() -> None:
    assert {path.name for path in VENDOR.glob("*.js")} == {file for file, *_ in ROWS}


def test_packages_are_locked_by_hash_and_name_no_registry() -> None:
    lock = json.loads((VENDOR / "package-lock.json").read_text())["packages"]
    packages = [entry for place, entry in lock.items() if place]
    assert {entry["integrity"][:7] for entry in packages} == {"sha512-"}
    assert not any("resolved" in entry for entry in packages)
