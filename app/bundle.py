"""The model bundle: what a folder ``model_store/<name>/<version>/`` must hold, and loading it.

``manifest.json`` describes the model and lists the SHA-256 of every other file;
``manifest.sha256`` holds the manifest's own. Nothing is read before its hash is checked. Where a
key is given, ``model.sig`` must be its signature of all of them. A new version is written beside
its place and moved there once sealed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from app.signature import Signed

DISCLAIMER = (
    "Research software, not a medical device. Not for diagnosis or for decisions about patients."
)
SCHEMA_VERSION = 1
NAME = r"[a-z0-9][a-z0-9-]*"
VERSION = r"\d+\.\d+\.\d+"
MANIFEST = "manifest.json"
MANIFEST_HASH = "manifest.sha256"
SIGNATURE = "model.sig"
ENCODER = "encoder.onnx"
HEAD = "head.onnx"
GATE = "gate.npz"
MODEL_CARD = "MODEL_CARD.md"
FIGURES = "figures.json"
Precision = Literal["fp32", "int8", "fp16"]


class BundleError(Exception):
    """A bundle that must not be served; the message says which file and why."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(_Part):
    """The encoder's input: float32 [images, height, width, 1] in ``value_range``."""

    height: int = Field(ge=32)
    width: int = Field(ge=32)
    channels: Literal[1] = 1
    value_range: tuple[float, float] = (-1.0, 1.0)


class PreprocessingSpec(_Part):
    """``version`` must equal that of the serving code: what was trained is what is served."""

    version: str
    description: str


class HeatmapSpec(_Part):
    """The native grid of the Grad-CAM map."""

    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    method: str


class OperatingPoint(_Part):
    """A threshold on the calibrated probability, with what was measured there."""

    name: str
    threshold: float
    sensitivity: float = Field(ge=0, le=1)
    specificity: float = Field(ge=0, le=1)
    sensitivity_interval: tuple[float, float]
    specificity_interval: tuple[float, float]
    measured_on: str


class RefusalRate(_Part):
    """The part of ``images`` that was refused, with its interval where patients are known."""

    images: int = Field(ge=1)
    value: float = Field(ge=0, le=1)
    interval: tuple[float, float] | None = None


class GateSpec(_Part):
    """The quality gate: how the distance in ``gate.npz`` was made, and what the gate was measured
    to refuse.

    ``false_refusals`` of mammograms of patients it was not fitted on, and ``by_rule`` what each
    rule on the pixels and the ``distance`` refused of them; ``others`` of other images by their
    kind, and ``others_by_distance`` of those by the distance alone.
    """

    method: str
    threshold: float = Field(gt=0)
    fitted_on: str
    measured_on: str
    false_refusals: RefusalRate
    by_rule: dict[str, RefusalRate]
    others: dict[str, RefusalRate]
    others_by_distance: dict[str, RefusalRate]


class Manifest(_Part):
    schema_version: Literal[1]
    name: str = Field(pattern=f"^{NAME}$")
    version: str = Field(pattern=f"^{VERSION}$")
    created: str
    classes: tuple[str, ...] = Field(min_length=2)
    positive_class: str
    input: InputSpec
    preprocessing: PreprocessingSpec
    time_encoding: str
    heatmap: HeatmapSpec
    temperature: float = Field(gt=0)
    operating_points: tuple[OperatingPoint, ...] = Field(min_length=1)
    default_operating_point: str
    intended_use: str
    data: dict[str, Any]
    verification: dict[str, Any]
    tools: dict[str, str]
    precision: Precision = "fp32"  # of the encoder's arithmetic
    gate: GateSpec | None = None
    files: dict[str, str]

    @model_validator(mode="after")
    def _names_refer(self) -> Manifest:
        if self.positive_class not in self.classes:
            raise ValueError("positive_class is not one of classes")
        if self.default_operating_point not in {point.name for point in self.operating_points}:
            raise ValueError("default_operating_point is not one of operating_points")
        missing = {ENCODER, HEAD, MODEL_CARD} - set(self.files)
        if missing:
            raise ValueError(f"files does not list {', '.join(sorted(missing))}")
        if (self.gate is None) != (GATE not in self.files):
            raise ValueError(f"gate and {GATE} go together")
        return self

    @property
    def positive_index(self) -> int:
        return self.classes.index(self.positive_class)

    def operating_point(self, name: str | None) -> OperatingPoint | None:
        """The named operating point, the default for None; None if there is no such name."""
        wanted = name or self.default_operating_point
        return next((point for point in self.operating_points if point.name == wanted), None)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. ``sha256`` is that of its manifest and thereby of every file.

    ``card`` is the model card, Markdown; ``figures`` a JSON object with what its plots show;
    ``signed_by`` names the key (``app.signature.key_id``) where one was asked for.
    """

    folder: Path
    manifest: Manifest
    sha256: str
    encoder: bytes
    head: bytes
    card: bytes
    gate: bytes | None = None
    figures: bytes | None = None
    signed_by: str | None = None


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_bundle(folder: Path, key: Path | None = None) -> Bundle:
    """Verify every file of a bundle and read its graphs.

    The bytes that are hashed are the bytes that are used. ``key`` is a file of public keys: one of
    them must have signed the bundle, and then nothing else may be in the folder. Raises
    ``BundleError`` naming the file.
    """
    bundle = _verified_bundle(folder, key)
    place = folder.absolute()
    made = (bundle.manifest.name, bundle.manifest.version)
    if made != (place.parent.name, place.name):  # as an old version that pretends to be a new one
        raise BundleError(f"{folder} holds {made[0]}/{made[1]}: it is not in its place")
    return bundle


def _verified_bundle(folder: Path, key: Path | None = None) -> Bundle:
    signed = _signed(folder, key) if key else None
    text = _read(folder / MANIFEST)
    digest = hashlib.sha256(text).hexdigest()
    if signed and signed.files.get(MANIFEST) != digest:
        raise BundleError(f"{folder / MANIFEST} is not the one that {SIGNATURE} signs")
    listed = _read(folder / MANIFEST_HASH)
    if listed.decode("ascii", "replace").strip() != digest:
        raise BundleError(f"{folder / MANIFEST} does not match {MANIFEST_HASH}: it was changed")
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{folder / MANIFEST} is not valid: {where}: {first['msg']}") from None
    contents = {
        name: _verified(folder, name, expected) for name, expected in manifest.files.items()
    }
    if signed:
        own = {MANIFEST: digest, MANIFEST_HASH: hashlib.sha256(listed).hexdigest()}
        _check_all_signed(folder, {**manifest.files, **own}, signed)
    return Bundle(
        folder=folder,
        manifest=manifest,
        sha256=digest,
        encoder=contents[ENCODER],
        head=contents[HEAD],
        card=contents[MODEL_CARD],
        gate=contents.get(GATE),
        figures=contents.get(FIGURES),
        signed_by=signed.by if signed else None,
    )


def seal(folder: Path, manifest: Mapping[str, Any]) -> Bundle:
    """Make a bundle of a folder that holds all its files but the manifest.

    ``manifest`` is that of ``Manifest`` without ``files``, which are hashed here. A signature is
    removed: it was of another manifest. Raises ``ValidationError`` for a manifest that is none.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    sealed = {MANIFEST, MANIFEST_HASH}
    files = {
        path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name not in sealed
    }
    text = Manifest.model_validate({**manifest, "files": files}).model_dump_json(indent=1).encode()
    (folder / MANIFEST).write_bytes(text)
    (folder / MANIFEST_HASH).write_text(hashlib.sha256(text).hexdigest() + "\n")
    return _verified_bundle(folder)


def check_new_version(target: Path) -> None:
    """Raise ``FileExistsError`` if there is such a version already, ``ValueError`` if ``target``
    is not ``<store>/<name>/<version>``."""
    if target.exists():
        raise FileExistsError(f"{target} exists; a version is never overwritten")
    if not (re.fullmatch(NAME, target.parent.name) and re.fullmatch(VERSION, target.name)):
        raise ValueError(f"{target} is not <store>/<name>/<version>, as in mammoseq/1.0.0")


@contextmanager
def new_version(target: Path) -> Iterator[Path]:
    """A folder to write a version in, which becomes ``target`` when all went well; else nothing
    of it stays. Raises as ``check_new_version``."""
    check_new_version(target)
    work = target.with_name(f".{target.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        work.replace(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):  # keeps the folder of a model that has other versions
            target.parent.rmdir()
        raise


def _verified(folder: Path, name: str, expected: str) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise BundleError(f"{folder / MANIFEST} lists a file outside its folder")
    content = _read(folder / name)
    if hashlib.sha256(content).hexdigest() != expected:
        raise BundleError(f"{folder / name} does not match its SHA-256 in the manifest")
    return content


def _signed(folder: Path, key: Path) -> Signed:
    # Not above: 7 MB that nobody needs who has no key
    from app.signature import SignatureError, read_keys, signed_files

    path = folder / SIGNATURE
    try:
        keys = read_keys(key)
    except SignatureError as error:
        raise BundleError(str(error)) from None
    if path not in _entries(folder):
        raise BundleError(f"{folder} is not signed: it holds no {SIGNATURE}")
    try:
        return signed_files(_read(path), keys)
    except SignatureError as error:
        raise BundleError(f"{path} {error}") from None


def _check_all_signed(folder: Path, loaded: Mapping[str, str], signed: Signed) -> None:
    """What is signed is what was loaded and what is there, file by file: as model-signing has it,
    which lets nothing unsigned, and no link, lie beside."""
    for name in sorted(loaded.keys() | signed.files.keys()):
        if loaded.get(name) != signed.files.get(name):
            raise BundleError(f"{folder / name} is not the one that {SIGNATURE} signs")
    for path in _entries(folder):
        if path.name not in {*loaded, SIGNATURE} or path.is_symlink():
            raise BundleError(f"{path} is not one of the files that {SIGNATURE} signs")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise BundleError(f"{folder} cannot be read: {error.strerror}") from None


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or device need never come to its end
            raise BundleError(f"{path} is not a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path} is missing") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None


def find_bundle(store: Path, asked: str | None) -> Path:
    """The version that is ``asked`` for as ``name/version``, the newest one of a ``name``, or that
    of the only model in a store.

    Raises ``BundleError`` when there is none, or several and no name.
    """
    return find_versions(store, asked)[0]


def find_versions(store: Path, asked: str | None) -> list[Path]:
    """The versions that ``find_bundle`` may mean, the newest first; at least one.

    Raises ``BundleError`` when there is none, or several models and no name.
    """
    if asked is None:
        name, version = _only_name(store), ""
    else:
        name, _, version = asked.partition("/")
        if not re.fullmatch(f"{NAME}(/{VERSION})?", asked):
            raise BundleError(f"{asked!r} is neither a `name` nor a `name/version` of a model")
    folder = store / name
    try:
        found = [entry for entry in folder.iterdir() if re.fullmatch(VERSION, entry.name)]
    except FileNotFoundError:
        found = []
    except OSError as error:
        raise BundleError(f"{folder} cannot be read: {error.strerror}") from None
    wanted = [entry for entry in found if version in ("", entry.name)]
    if not wanted:
        raise BundleError(f"{folder} holds no version {version or 'of a model'}")
    return sorted(
        wanted, key=lambda entry: tuple(int(part) for part in entry.name.split(".")), reverse=True
    )


def _only_name(store: Path) -> str:
    try:
        names = [p.name for p in store.iterdir() if re.fullmatch(NAME, p.name) and p.is_dir()]
    except OSError:
        raise BundleError(f"{store} is not a folder") from None
    if not names:
        raise BundleError(f"{store} holds no model")
    if len(names) != 1:
        raise BundleError(f"{store} holds {len(names)} models; set MAMMOSEQ_MODEL to choose one")
    return names[0]
