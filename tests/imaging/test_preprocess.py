"""Pixels -> tensor: the breast is found, turned and normalised, and every place maps back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.imaging.decode import decode
from app.imaging.preprocess import Crop, InputGeometry, ModelInput, _without_frame, preprocess
from app.problems import Refusal
from tests.pictures import DECODABLE, breast, real_dicom, sixteen_bit

SIZE = InputGeometry(256, 160)


def prepared(pixels: NDArray[Any]) -> ModelInput:
    return preprocess(pixels, SIZE)


def mean_difference(one: ModelInput, other: ModelInput) -> float:
    """Of two tensors, as a part of their range."""
    return float(np.abs(one.tensor - other.tensor).mean()) / 2


def brightest(tensor: NDArray[np.float32]) -> tuple[float, float]:
    """Row and column of the brightest place, as fractions of the tensor."""
    blurred = cv2.GaussianBlur(tensor[..., 0], (0, 0), 8)
    row, column = np.unravel_index(int(np.argmax(blurred)), blurred.shape)
    return (float(row) + 0.5) / tensor.shape[0], (float(column) + 0.5) / tensor.shape[1]


@pytest.mark.parametrize("make", [breast(), sixteen_bit(breast())], ids=["8 bit", "16 bit"])
def test_tensor_has_the_models_shape_type_and_range(make: NDArray[Any]) -> None:
    result = prepared(make)
    assert result.tensor.shape == (256, 160, 1)
    assert result.tensor.dtype == np.float32
    assert result.tensor.min() == -1.0
    assert result.tensor.max() == 1.0


def test_eight_and_sixteen_bit_give_the_same_tensor() -> None:
    assert mean_difference(prepared(breast()), prepared(sixteen_bit(breast()))) < 0.005


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mirrored_breast_gives_the_same_tensor(dtype: type) -> None:
    pixels: NDArray[Any] = breast(spots=[(220, 120)]).astype(dtype)
    left, right = prepared(pixels), prepared(pixels[:, ::-1].copy())
    assert (left.crop.flipped, right.crop.flipped) == (False, True)
    assert mean_difference(left, right) < 0.01


@pytest.mark.parametrize("encoding", DECODABLE)
def test_real_mammogram_gives_the_same_tensor_in_every_encoding(encoding: str) -> None:
    expected = prepared(decode(real_dicom("explicit"), 10**6)[0])
    result = prepared(decode(real_dicom(encoding), 10**6)[0])
    np.testing.assert_array_equal(result.tensor, expected.tensor)
    assert result.crop == expected.crop


@pytest.mark.parametrize("make", [breast(), sixteen_bit(breast())], ids=["8 bit", "16 bit"])
def test_inverted_image_is_recognised_and_turned(make: NDArray[Any]) -> None:
    inverse = np.iinfo(make.dtype).max - make
    result = prepared(inverse)
    assert result.inverted
    assert not prepared(make).inverted
    assert mean_difference(result, prepared(make)) < 0.01


def test_brightness_and_contrast_of_the_film_do_not_matter() -> None:
    pixels = breast()
    darker = (pixels * 0.4).astype(np.uint8)
    assert mean_difference(prepared(pixels), prepared(darker)) < 0.02


def test_empty_margin_beside_the_breast_moves_the_crop_with_the_breast() -> None:
    pixels = breast()
    one, other = prepared(pixels).crop, prepared(np.pad(pixels, ((80, 120), (0, 500)))).crop
    assert abs(other.top - 80 - one.top) < 0.02 * 600
    assert abs(other.left - one.left) < 0.02 * 400
    assert abs(other.height - one.height) < 0.02 * 600
    assert abs(other.width - one.width) < 0.02 * 400


def test_label_burnt_into_the_corner_is_left_out_of_the_crop() -> None:
    pixels = np.pad(breast(), ((0, 0), (0, 200)))
    cv2.putText(pixels, "L CC", (440, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 255, 5)
    crop = prepared(pixels).crop
    assert crop.left + crop.width < 360


@pytest.mark.parametrize("width", [1, 3, 10, 20])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("right", [False, True], ids=["left", "right"])
def test_white_frame_burnt_in_around_the_image_does_not_change_the_crop(
    right: bool, dtype: type, width: int
) -> None:
    margin = ((40, 40), (200, 60) if right else (60, 200))
    pixels: NDArray[Any] = np.pad(breast(right=right), margin).astype(dtype)
    framed = np.full_like(pixels, 255)
    framed[width:-width, width:-width] = pixels[width:-width, width:-width]
    one, other = prepared(pixels), prepared(framed)
    assert (one.inverted, one.crop.flipped) == (other.inverted, other.crop.flipped)
    for side in ("left", "top", "width", "height"):
        assert abs(getattr(one.crop, side) - getattr(other.crop, side)) <= 6
    assert mean_difference(one, other) < 0.05


def test_white_label_burnt_in_beside_the_breast_does_not_change_the_crop() -> None:
    pixels = np.pad(breast(), ((0, 0), (0, 300)))
    labelled = pixels.copy()
    cv2.rectangle(labelled, (500, 20), (680, 140), 255, -1)
    cv2.putText(labelled, "L CC", (510, 100), cv2.FONT_HERSHEY_SIMPLEX, 2, 0, 6)
    one, other = prepared(pixels), prepared(labelled)
    for side in ("left", "top", "width", "height"):
        assert abs(getattr(one.crop, side) - getattr(other.crop, side)) <= 6
    assert mean_difference(one, other) < 0.05


@pytest.mark.parametrize("encoding", ["explicit", "monochrome1"])
def test_no_frame_is_seen_where_there_is_none(encoding: str) -> None:
    """Not on a scanned film with its bright rims, nor on one that was never inverted."""
    pixels = decode(real_dicom(encoding), 10**6)[0]
    for image in (pixels, pixels.max() - pixels, np.pad(255 - breast(), 9, constant_values=255)):
        assert _without_frame(image, image.max())[2] is image


@pytest.mark.parametrize("size", [(600, 400), (3000, 2000), (257, 255), (90, 60)])
@pytest.mark.parametrize("right", [False, True], ids=["left", "flipped"])
@pytest.mark.parametrize("place", [(0.5, 0.3), (0.3, 0.2), (0.65, 0.4)])
def test_place_in_the_tensor_maps_back_to_the_place_in_the_image(
    place: tuple[float, float], right: bool, size: tuple[int, int]
) -> None:
    rows, columns = size
    row, column = place[0] * rows, (1 - place[1] if right else place[1]) * columns
    result = prepared(breast(rows, columns, spots=[(row, column)], right=right))
    assert result.crop.flipped == right
    found_row, found_column = result.crop.to_original(*brightest(result.tensor))
    assert abs(found_row - row) < 2 + result.crop.height / SIZE.height
    assert abs(found_column - column) < 2 + result.crop.width / SIZE.width


@pytest.mark.parametrize("flipped", [False, True])
def test_corners_of_the_tensor_are_corners_of_the_box(flipped: bool) -> None:
    crop = Crop(left=10, top=20, width=100, height=200, flipped=flipped)
    near, far = crop.to_original(0, 0), crop.to_original(1, 1)
    rows, columns = zip(near, far, strict=True)
    assert rows[1] - rows[0] == 200
    assert columns[1] - columns[0] == (-100 if flipped else 100)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((300, 200), np.uint8),
        np.full((300, 200), 255, np.uint8),
        np.full((300, 200), 30_000, np.uint16),
        np.zeros((1, 1), np.uint8),
        np.full((2, 2), 7, np.uint8),
        np.full((1, 4000), 7, np.uint8),
        np.eye(5, dtype=np.uint8) * 200,
    ],
    ids=["black", "white", "grey", "1 x 1", "2 x 2", "1 x 4000", "5 x 5"],
)
def test_image_without_a_breast_is_refused(pixels: NDArray[Any]) -> None:
    with pytest.raises(Refusal) as caught:
        prepared(pixels)
    assert caught.value.code == "no_breast_found"


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 17, 64, 1000, 20_000])
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 8, 17, 64, 1000])
def test_image_of_any_shape_is_prepared_or_refused_but_never_fails(rows: int, columns: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (rows, columns), dtype=np.uint8)
    half = np.zeros((rows, columns), np.uint8)
    half[:, : columns // 2 + 1] = 100
    for pixels in (noise, half):
        try:
            result = prepared(pixels)
        except Refusal:
            continue
        crop = result.crop
        assert np.isfinite(result.tensor).all()
        assert crop.left >= 0
        assert crop.top >= 0
        assert 0 < crop.width <= columns - crop.left
        assert 0 < crop.height <= rows - crop.top


def test_input_is_left_as_it_was() -> None:
    pixels = breast(right=True)
    before = pixels.copy()
    prepared(pixels)
    np.testing.assert_array_equal(pixels, before)
