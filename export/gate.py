"""The quality gate's distance in feature space: fitted on training images, measured on others.

What is refused of the validation images is refused falsely; a folder of other images, one
sub-folder per kind, tells what else is let through. Rules and distance are measured together, as
the service applies them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from app.bundle import (
    GATE,
    MODEL_CARD,
    Bundle,
    GateSpec,
    InputSpec,
    RefusalRate,
    load_bundle,
    new_version,
    seal,
)
from app.imaging.decode import decode
from app.imaging.facts import ImageFacts
from app.imaging.header import Unusual
from app.imaging.preprocess import InputGeometry, preprocess, to_tensor
from app.imaging.quality import LIMITS, measures_of
from app.inference.familiarity import Familiarity, gate_bytes, levelled, outside
from app.inference.sessions import Sessions
from app.problems import Refusal
from export.altered import altered
from export.card import with_gate
from export.spoiled import SPOILED
from training import manifest
from training.manifest import LabelledImage

_DIRECTIONS = 64  # of feature space that mammograms fill
_COPIES = 2  # altered ones of each training image
_FOLDS = 5
_FAMILIAR = 0.995  # of the training images, each measured by a fit on other patients
_MIN_SCALE = 1e-3  # of the largest: a channel that never changes must not blow up
_RESAMPLES = 2000
_MAX_PIXELS = 100_000_000
_DISTANCE = "distance"

T = TypeVar("T")
Look = Callable[..., "_Looked"]  # of pixels, facts and a number of altered copies
_NO_COPIES = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class GateImages:
    """What a gate is made from: a ``manifest`` with splits, the root of its images (by default
    the manifest's folder), and a folder of ``others`` with one sub-folder per kind, or None."""

    manifest: Path
    image_root: Path | None = None
    others: Path | None = None


@dataclass(frozen=True)
class _Looked:
    """The rules that an image breaks, and its features, [channels], with those of its altered
    copies, [copies, channels]. None for an image that cannot be preprocessed."""

    broken: frozenset[str]
    pooled: NDArray[np.float32] | None
    copies: NDArray[np.float32]


def add_gate(source: Path, target: Path, images: GateImages) -> Bundle:
    """Write ``target``, ``<store>/<name>/<version>``: the graphs of the bundle ``source`` with a
    gate fitted to them. Raises ``ValueError`` for images that do not serve, and as
    ``new_version``."""
    bundle = load_bundle(source)
    sessions = Sessions(bundle.encoder, bundle.head, device="cpu")
    with new_version(target) as work:
        for name in bundle.manifest.files:
            (work / name).write_bytes((source / name).read_bytes())
        content, spec = fit_gate(sessions, bundle.manifest.input, images)
        (work / GATE).write_bytes(content)
        made = {
            **bundle.manifest.model_dump(exclude={"files"}),
            "name": target.parent.name,
            "version": target.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "gate": spec.model_dump(),
        }
        card = (work / MODEL_CARD).read_text()
        (work / MODEL_CARD).write_text(with_gate(card, made))
        seal(work, made)
    return load_bundle(target)


def fit_gate(sessions: Sessions, size: InputSpec, images: GateImages) -> tuple[bytes, GateSpec]:
    """Fit on the training images of the manifest, measure on its validation images and on the
    others. Returns ``gate.npz`` and what the manifest says of it."""
    rows = manifest.read(images.manifest, images.image_root)
    train, val = ([row for row in rows if row.split == split] for split in manifest.SPLITS)
    if len({row.patient_id for row in train}) < _FOLDS or not val:
        raise ValueError(
            f"{images.manifest} needs splits: {_FOLDS} training patients or more, and validation"
        )
    geometry = InputGeometry(size.height, size.width)

    def look(pixels: NDArray[Any], facts: ImageFacts, copies: int = 0) -> _Looked:
        return _look(sessions, geometry, pixels, facts, copies)

    learned = _in_pool(lambda row: _read(row.path, look, _COPIES), train, "training images")
    known = _fit(learned, [row.patient_id for row in train])
    content = gate_bytes(known.mean, known.scale, known.basis)
    seen = _in_pool(lambda row: _read(row.path, look), val, "validation images")
    refused = [_reasons(known, one) for one in seen]
    kinds = _measure_spoiled(known, look, geometry, val)
    if images.others:
        kinds |= _measure_folders(known, look, images.others)
    patients = np.array([row.patient_id for row in val])
    return content, GateSpec(
        method="root mean square of the square roots of the pooled features, standardised, outside "
        f"of the {known.basis.shape[1]} principal directions of mammograms",
        threshold=known.threshold,
        fitted_on=f"{sum(one.pooled is not None for one in learned)} training images of "
        f"{len({row.patient_id for row in train})} patients and {_COPIES} altered copies of each",
        measured_on=f"{len(val)} validation images of {len(set(patients))} patients",
        false_refusals=RefusalRate(
            images=len(val),
            value=_share([bool(reasons) for reasons in refused]),
            interval=_by_patient(np.array([bool(reasons) for reasons in refused]), patients),
        ),
        by_rule={
            rule: RefusalRate(images=len(val), value=_share(rule in reasons for reasons in refused))
            for rule in (*(limit.measure for limit in LIMITS), _DISTANCE)
        },
        others={kind: both[0] for kind, both in kinds.items()},
        others_by_distance={kind: both[1] for kind, both in kinds.items()},
    )


def _read(path: Path, look: Look, *copies: int) -> _Looked:
    try:
        decoded = decode(path.read_bytes(), _MAX_PIXELS, frozenset(get_args(Unusual)))
    except Refusal as refusal:
        return _Looked(frozenset({refusal.code}), None, _NO_COPIES)
    return look(*decoded, *copies)


def _look(
    sessions: Sessions,
    geometry: InputGeometry,
    pixels: NDArray[Any],
    facts: ImageFacts,
    copies: int,
) -> _Looked:
    try:
        model_input = preprocess(pixels, geometry)
    except Refusal as refusal:
        return _Looked(frozenset({refusal.code}), None, _NO_COPIES)
    measures = measures_of(pixels, model_input, facts)
    broken = frozenset(limit.measure for limit in LIMITS if limit.is_broken(measures))
    tensor = model_input.tensor[np.newaxis]
    pooled = sessions.encode(tensor).pooled[0]
    if not copies:
        return _Looked(broken, pooled, _NO_COPIES)
    breast = np.rint((tensor[0, ..., 0] + 1) * 127.5).astype(np.uint8)
    rng = np.random.default_rng(int(breast.sum()))  # the same for the same image, in any order
    changed = np.stack([altered(breast, rng) for _ in range(copies)])
    return _Looked(broken, pooled, sessions.encode(to_tensor(changed)).pooled)


def _fit(looked: Sequence[_Looked], patients: Sequence[str]) -> Familiarity:
    """The threshold is a quantile of distances that each patient has from a fit on others."""
    usable = [
        (one.pooled, one.copies, p)
        for one, p in zip(looked, patients, strict=True)
        if one.pooled is not None
    ]
    plain = levelled(np.stack([pooled for pooled, _, _ in usable]).astype(np.float64))
    copies = levelled(np.stack([several for _, several, _ in usable]).astype(np.float64))
    names, index = np.unique([patient for *_, patient in usable], return_inverse=True)
    fold = (np.random.default_rng(0).permutation(len(names)) % _FOLDS)[index]

    def directions(keep: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
        return _directions(np.concatenate([plain[keep], copies[keep].reshape(-1, plain.shape[1])]))

    distances = np.empty(len(plain))
    for i in range(_FOLDS):
        distances[fold == i] = outside(plain[fold == i], *directions(fold != i))
    mean, scale, basis = directions(np.ones(len(plain), bool))
    return Familiarity(
        mean.astype(np.float32),
        scale.astype(np.float32),
        basis.astype(np.float32),
        float(np.quantile(distances, _FAMILIAR)),
    )


def _directions(
    features: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, scale and the directions of the largest variance of [images, channels]."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    scale = spread + _MIN_SCALE * spread.max()
    standard = (features - mean) / scale
    _, vectors = np.linalg.eigh(standard.T @ standard)  # ascending
    count = min(_DIRECTIONS, features.shape[1] // 2)
    return mean, scale, vectors[:, -count:]


def _reasons(known: Familiarity, looked: _Looked) -> set[str]:
    """Why the service would refuse an image: the names of rules, or ``distance``."""
    far = looked.pooled is not None and known.fault_of(looked.pooled) is not None
    return {*looked.broken, *([_DISTANCE] if far else [])}


def _measure_spoiled(
    known: Familiarity, look: Look, geometry: InputGeometry, rows: Sequence[LabelledImage]
) -> dict[str, tuple[RefusalRate, RefusalRate]]:
    def spoil(name: str, path: Path) -> _Looked:
        try:
            pixels, facts = decode(path.read_bytes(), _MAX_PIXELS)
            whole = preprocess(pixels, geometry)
            upright = pixels.max() - pixels if whole.inverted else pixels
            return look(SPOILED[name](upright, whole.crop), facts)
        except Refusal as refusal:
            return _Looked(frozenset({refusal.code}), None, _NO_COPIES)

    return {
        f"validation images, {name}": _rates(
            known, _in_pool(partial(spoil, name), [row.path for row in rows], name)
        )
        for name in SPOILED
    }


def _measure_folders(
    known: Familiarity, look: Look, folder: Path
) -> dict[str, tuple[RefusalRate, RefusalRate]]:
    found = {}
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(path for path in kind.iterdir() if path.is_file())
        if not files:
            raise ValueError(f"{kind} holds no image")
        looked = _in_pool(lambda path: _read(path, look), files, kind.name)
        found[kind.name] = _rates(known, looked)
    return found


def _rates(known: Familiarity, looked: Sequence[_Looked]) -> tuple[RefusalRate, RefusalRate]:
    """What is refused, and what is refused by the distance alone."""
    reasons = [_reasons(known, one) for one in looked]
    return (
        RefusalRate(images=len(reasons), value=_share(map(bool, reasons))),
        RefusalRate(images=len(reasons), value=_share(_DISTANCE in one for one in reasons)),
    )


def _by_patient(refused: NDArray[np.bool_], patients: NDArray[np.str_]) -> tuple[float, float]:
    """95 % bootstrap interval of a share of images, by patient."""
    _, index = np.unique(patients, return_inverse=True)
    hits, counts = np.bincount(index, refused), np.bincount(index)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(counts), (_RESAMPLES, len(counts)))
    low, high = np.quantile(hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (0.025, 0.975))
    return float(low), float(high)


def _share(found: Iterable[bool]) -> float:
    return float(np.mean(list(found)))


def _in_pool(work: Callable[[T], _Looked], items: Sequence[T], what: str) -> list[_Looked]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(work, items), what, len(items), unit="image", mininterval=2))
