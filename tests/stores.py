"""Stores of models that tests make: more versions of the shipped bundle, whole and spoiled."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from app.bundle import ENCODER, MANIFEST, MANIFEST_HASH, Bundle, load_bundle, new_version, seal


def put_version(bundle: Bundle, store: Path, version: str, **changed: Any) -> Path:
    """Put a version of ``bundle`` into a store as a new one comes: written beside and moved in.
    ``changed`` are fields of its manifest."""
    target = store / bundle.manifest.name / version
    manifest = bundle.manifest.model_dump(exclude={"files"}) | {"version": version} | changed
    with new_version(target) as folder:
        sealed = shutil.ignore_patterns(MANIFEST, MANIFEST_HASH)
        shutil.copytree(bundle.folder, folder, ignore=sealed, dirs_exist_ok=True)
        seal(folder, manifest)
    return target


def put_corrupt_version(bundle: Bundle, store: Path, version: str) -> Path:
    """A version with one bit of its encoder turned after it was sealed."""
    made = put_version(bundle, store / ".elsewhere", version)
    encoder = made / ENCODER
    whole = encoder.read_bytes()
    encoder.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    target = store / bundle.manifest.name / version
    target.parent.mkdir(parents=True, exist_ok=True)
    return made.replace(target)


def mend(folder: Path) -> None:
    """Turn that bit back."""
    encoder = folder / ENCODER
    spoiled = encoder.read_bytes()
    encoder.write_bytes(spoiled[:-1] + bytes([spoiled[-1] ^ 1]))
    load_bundle(folder)
