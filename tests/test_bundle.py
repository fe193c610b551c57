"""A bundle is served as it was exported, or not at all, and the message says which file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.bundle import (
    ENCODER,
    GATE,
    HEAD,
    MANIFEST,
    MANIFEST_HASH,
    MODEL_CARD,
    SIGNATURE,
    Bundle,
    BundleError,
    file_sha256,
    find_bundle,
    load_bundle,
    new_version,
    seal,
)
from app.imaging.preprocess import PREPROCESSING_VERSION
from tests.serving import refused_to_start


@pytest.fixture
def copy(bundle_folder: Path, tmp_path: Path) -> Path:
    """The shipped bundle in a store of its own, to be damaged."""
    target = tmp_path / "store" / bundle_folder.parent.name / bundle_folder.name
    shutil.copytree(bundle_folder, target)
    return target


def reseal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and write its hash anew, as a forger or a mistaken tool would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    text = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(text)
    (folder / MANIFEST_HASH).write_text(hashlib.sha256(text).hexdigest())


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_shipped_bundle_is_whole(bundle_folder: Path) -> None:
    loaded = load_bundle(bundle_folder)
    assert loaded.encoder == (bundle_folder / ENCODER).read_bytes()
    assert loaded.head == (bundle_folder / HEAD).read_bytes()
    assert loaded.sha256 == file_sha256(bundle_folder / MANIFEST)


def test_shipped_bundle_lists_every_file_in_its_folder(bundle: Bundle) -> None:
    there = set(files_of(bundle.folder)) - {SIGNATURE}  # somebody's own
    assert {*bundle.manifest.files, MANIFEST, MANIFEST_HASH} == there


def test_shipped_bundle_is_named_after_its_folder(bundle: Bundle) -> None:
    assert bundle.folder.parent.name == bundle.manifest.name
    assert bundle.folder.name == bundle.manifest.version


def test_shipped_bundle_fits_this_code(bundle: Bundle) -> None:
    assert bundle.manifest.preprocessing.version == PREPROCESSING_VERSION
    assert bundle.manifest.positive_class == "malignant"


@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink, lambda path: path.write_bytes(b"")])
def test_every_file_that_is_changed_missing_or_empty_is_refused_by_name(
    bundle_folder: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    for name in files_of(bundle_folder):
        folder = tmp_path / name / "1.0.0"
        shutil.copytree(bundle_folder, folder)
        damage(folder / name)
        with pytest.raises(BundleError) as caught:
            load_bundle(folder)
        assert name in str(caught.value)


def test_file_that_cannot_be_read_is_refused_by_name(copy: Path) -> None:
    (copy / HEAD).unlink()
    (copy / HEAD).mkdir()
    with pytest.raises(BundleError, match=HEAD):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=2), "schema_version"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m.pop("temperature"), "temperature"),
        (lambda m: m.update(temperature=0), "temperature"),
        (lambda m: m.update(classes=["malignant"]), "classes"),
        (lambda m: m.update(positive_class="else"), "positive_class is not one of classes"),
        (lambda m: m.update(default_operating_point="else"), "default_operating_point"),
        (lambda m: m.update(operating_points=[]), "operating_points"),
        (lambda m: m.update(version="1.0"), "version"),
        (lambda m: m["input"].update(height=0), "height"),
        (lambda m: m["files"].pop(HEAD), HEAD),
        (lambda m: m["files"].pop(ENCODER), ENCODER),
        (lambda m: m["files"].pop(MODEL_CARD), MODEL_CARD),
        (lambda m: m["files"].update({"../secret": "0" * 64}), "outside its folder"),
        (lambda m: m["files"].update({"/etc/passwd": "0" * 64}), "outside its folder"),
        (lambda m: m["files"].update({"notes.txt": "0" * 64}), "notes.txt is missing"),
    ],
)
def test_manifest_that_says_something_impossible_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    reseal(copy, change)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff\xfe"])
def test_manifest_that_is_no_manifest_is_refused_by_name(copy: Path, content: bytes) -> None:
    (copy / MANIFEST).write_bytes(content)
    (copy / MANIFEST_HASH).write_text(hashlib.sha256(content).hexdigest())
    with pytest.raises(BundleError, match=MANIFEST):
        load_bundle(copy)


def test_operating_points_are_found_by_name(bundle: Bundle) -> None:
    for point in bundle.manifest.operating_points:
        assert bundle.manifest.operating_point(point.name) == point
    default = bundle.manifest.operating_point(None)
    assert default is not None
    assert default.name == bundle.manifest.default_operating_point
    assert bundle.manifest.operating_point("no such point") is None


# a new version


def test_folder_that_is_sealed_is_a_bundle_of_all_its_files(copy: Path) -> None:
    manifest = load_bundle(copy).manifest.model_dump(exclude={"files"})
    (copy / "notes.txt").write_text("one more")
    sealed = seal(copy, manifest | {"temperature": 2.0})
    assert sealed.manifest.temperature == 2
    assert {*sealed.manifest.files, MANIFEST, MANIFEST_HASH} == set(files_of(copy))
    assert sealed.sha256 == load_bundle(copy).sha256
    flip_a_bit(copy / "notes.txt")
    with pytest.raises(BundleError, match=r"notes\.txt"):
        load_bundle(copy)


def test_folder_without_a_graph_is_not_sealed(copy: Path) -> None:
    manifest = load_bundle(copy).manifest.model_dump(exclude={"files"})
    (copy / HEAD).unlink()
    with pytest.raises(ValidationError, match=HEAD):
        seal(copy, manifest)


def test_new_version_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "store" / "a" / "1.0.0"

    def write(content: str, fault: bool) -> None:
        with new_version(target) as work:
            (work / "file").write_text(content)
            assert not target.exists()
            if fault:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write("half", fault=True)
    assert list((tmp_path / "store").iterdir()) == []
    write("whole", fault=False)
    with pytest.raises(FileExistsError, match="never overwritten"):
        write("other", fault=False)
    assert files_of(target.parent) == ["1.0.0"]
    assert (target / "file").read_text() == "whole"


# the store


def make_store(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("folders", "name", "expected"),
    [
        (["a/1.0.0"], None, "a/1.0.0"),
        (["a/1.9.0", "a/1.10.0", "a/1.2.11"], None, "a/1.10.0"),
        (["a/1.0.0", "b/2.0.0"], "a", "a/1.0.0"),
        (["a/1.0.0", "a/.2.0.0.part", "a/notes"], None, "a/1.0.0"),
    ],
)
def test_newest_version_of_the_model_is_found(
    tmp_path: Path, folders: list[str], name: str | None, expected: str
) -> None:
    assert find_bundle(make_store(tmp_path, *folders), name) == tmp_path / expected


@pytest.mark.parametrize(
    ("folders", "name", "message"),
    [
        ([], None, "holds no model"),
        (["a/1.0.0", "b/1.0.0"], None, "holds 2 models; set MAMMOSEQ_MODEL"),
        (["a/1.0.0"], "b", "holds no version"),
        (["a/1.0.0"], "", "'' is neither a `name`"),
        (["a/latest"], None, "holds no version"),
    ],
)
def test_store_without_one_answer_is_refused(
    tmp_path: Path, folders: list[str], name: str | None, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        find_bundle(make_store(tmp_path, *folders), name)


def test_store_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere is not a folder"):
        find_bundle(tmp_path / "nowhere", None)


@pytest.mark.parametrize("half", ["manifest", "file"])
def test_gate_is_in_the_manifest_and_in_a_file_or_in_neither(copy: Path, half: str) -> None:
    if half == "manifest":
        reseal(copy, lambda manifest: manifest["files"].pop(GATE))
    else:
        reseal(copy, lambda manifest: manifest.pop("gate"))
    with pytest.raises(BundleError, match=r"gate and gate\.npz go together"):
        load_bundle(copy)


# the process


@pytest.mark.parametrize("name", [MANIFEST, MANIFEST_HASH, ENCODER])
def test_what_would_never_end_is_not_read(copy: Path, name: str) -> None:
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(BundleError, match=rf"{name} is not a file"):
        load_bundle(copy)


@pytest.mark.parametrize("name", [ENCODER, HEAD, MODEL_CARD, MANIFEST])
def test_service_does_not_start_with_a_tampered_file_and_names_it(copy: Path, name: str) -> None:
    flip_a_bit(copy / name)
    status, printed = refused_to_start(copy)
    assert status == 1
    assert f"refused to start: {copy / name}" in printed
    assert "Traceback" not in printed


def test_service_does_not_start_with_a_missing_file_and_names_it(copy: Path) -> None:
    (copy / ENCODER).unlink()
    status, printed = refused_to_start(copy)
    assert status == 1
    assert f"refused to start: {copy / ENCODER} is missing" in printed


def test_service_does_not_start_with_a_model_made_for_other_preprocessing(copy: Path) -> None:
    reseal(copy, lambda manifest: manifest["preprocessing"].update(version="999"))
    status, printed = refused_to_start(copy)
    assert status == 1
    assert f"{copy} needs preprocessing 999" in printed


def test_service_does_not_start_with_a_graph_that_is_none_and_names_it(copy: Path) -> None:
    """The hashes are right, the content is not: a bundle from a broken tool."""
    (copy / HEAD).write_bytes(b"no graph")
    reseal(copy, lambda manifest: manifest["files"].update({HEAD: file_sha256(copy / HEAD)}))
    status, printed = refused_to_start(copy)
    assert status == 1
    assert HEAD in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("setting", "value"), [("workers", "many"), ("max_pixels", "0"), ("device", "tpu")]
)
def test_service_does_not_start_with_an_impossible_setting_and_names_it(
    bundle_folder: Path, setting: str, value: str
) -> None:
    status, printed = refused_to_start(bundle_folder, **{setting: value})
    assert status != 0
    assert f"MAMMOSEQ_{setting.upper()}" in printed
    assert "Traceback" not in printed


def test_service_does_not_start_on_cuda_where_there_is_none(bundle_folder: Path) -> None:
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has an NVIDIA device")
    status, printed = refused_to_start(bundle_folder, device="cuda")
    assert status == 1
    assert "MAMMOSEQ_DEVICE=cuda" in printed
