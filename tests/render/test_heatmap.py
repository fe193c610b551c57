"""Maps -> pictures and places: what is drawn and what is said lie on the same spot."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.imaging.display import crop_in, displayed
from app.imaging.preprocess import Crop, InputGeometry, preprocess
from app.problems import Refusal
from app.render.heatmap import box, encode_map, encode_overlay, levels, map_to_original, peak
from tests.pictures import breast, pixels_of, sixteen_bit

ROWS, COLUMNS = 16, 10
CROPS = [
    Crop(left=0, top=41, width=306, height=518, flipped=False),
    Crop(left=93, top=41, width=306, height=518, flipped=True),
    Crop(left=7, top=0, width=33, height=47, flipped=True),
]


def one_hot(row: int, column: int) -> NDArray[np.float32]:
    heatmap = np.zeros((ROWS, COLUMNS), np.float32)
    heatmap[row, column] = 2.5
    return heatmap


def overlay(
    pixels: NDArray[Any],
    heatmap: NDArray[np.float32],
    crop: Crop,
    *,
    inverted: bool = False,
    scale: float = 2.5,
    long_side: int = 1024,
) -> NDArray[Any]:
    shown = displayed(pixels, long_side, inverted=inverted)
    box = crop_in(shown, crop, *pixels.shape)
    return pixels_of(encode_overlay(shown, heatmap, box, scale=scale, image_type="png"))


def colourfulness(picture: NDArray[Any]) -> NDArray[np.int64]:
    """Difference of the strongest and the weakest colour of each pixel."""
    return np.asarray(np.ptp(picture.astype(np.int64), axis=2))


@pytest.mark.parametrize("crop", CROPS)
def test_map_transform_agrees_with_the_crop(crop: Crop) -> None:
    """Cells and pixels count from their centres; the crop's box from its edges."""
    matrix = np.array(map_to_original(one_hot(0, 0), crop))
    for row, column in np.ndindex(ROWS, COLUMNS):
        expected = crop.to_original((row + 0.5) / ROWS, (column + 0.5) / COLUMNS)
        x, y = matrix @ (column, row, 1)
        assert (y + 0.5, x + 0.5) == pytest.approx(expected)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("cell", [(0, 0), (3, 7), (15, 9)])
def test_peak_is_where_the_map_transform_puts_the_highest_cell(
    cell: tuple[int, int], crop: Crop
) -> None:
    heatmap = one_hot(*cell)
    found = peak(heatmap, crop)
    assert found is not None
    x, y = np.array(map_to_original(heatmap, crop)) @ (cell[1], cell[0], 1)
    assert (found.row, found.column) == pytest.approx((y, x))


def test_peak_counts_from_the_centre_of_the_first_pixel() -> None:
    """One cell over an image of 3 x 5 pixels: its centre is pixel (1, 2)."""
    found = peak(np.ones((1, 1), np.float32), Crop(0, 0, 5, 3, flipped=False))
    assert found is not None
    assert (found.row, found.column) == (1, 2)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_map_without_evidence_has_no_peak(value: float) -> None:
    assert peak(np.full((ROWS, COLUMNS), value, np.float32), CROPS[0]) is None


@pytest.mark.parametrize("right", [False, True], ids=["left", "flipped"])
@pytest.mark.parametrize("spot", [(200, 110), (420, 60), (300, 240)])
def test_peak_lands_on_the_spot_that_the_map_shows(spot: tuple[int, int], right: bool) -> None:
    """The map here is the model's input itself, averaged over the cells of the grid."""
    row, column = spot[0], 399 - spot[1] if right else spot[1]
    made = preprocess(breast(spots=[(row, column)], right=right), InputGeometry(256, 160))
    averaged = cv2.resize(made.tensor[..., 0] + 1, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    heatmap = averaged.astype(np.float32)
    found = peak(heatmap, made.crop)
    assert found is not None
    assert abs(found.row - row) <= made.crop.height / ROWS
    assert abs(found.column - column) <= made.crop.width / COLUMNS


def warm(*cells: tuple[int, int, float]) -> NDArray[np.float32]:
    heatmap = np.zeros((8, 10), np.float32)
    for row, column, value in cells:
        heatmap[row, column] = value
    return heatmap


@pytest.mark.parametrize(("flipped", "left"), [(False, 100 + 40), (True, 100 + 200 - 60 - 40)])
def test_box_holds_what_joins_the_peak_at_half_of_its_value(flipped: bool, left: int) -> None:
    """Cells of 10 rows and 20 columns; a colder cell and a warm one far off are outside."""
    heatmap = warm((2, 2, 1.0), (3, 3, 0.6), (3, 4, 0.5), (4, 4, 0.4), (7, 9, 0.9))
    found = box(heatmap, Crop(100, 50, 200, 80, flipped=flipped))
    assert found is not None
    assert (found.top, found.height, found.width) == pytest.approx((70, 20, 60))
    assert found.left == pytest.approx(left)


def test_map_without_evidence_has_no_box() -> None:
    assert box(np.zeros((4, 4), np.float32), CROPS[0]) is None


def test_map_keeps_its_grid_and_its_scale() -> None:
    heatmap = np.linspace(0, 2, ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    grey = pixels_of(encode_map(heatmap, scale=4.0))
    assert grey.dtype == np.uint8
    assert grey.shape == (ROWS, COLUMNS)
    np.testing.assert_allclose(grey, heatmap * 255 / 4, atol=0.51)


@pytest.mark.parametrize("size", [(1, 1), (16, 10), (300, 200)])
def test_map_is_a_png_that_a_strict_reader_reads(size: tuple[int, int]) -> None:
    heatmap = np.random.default_rng(0).random(size, dtype=np.float32)
    data = encode_map(heatmap, scale=1.0)
    Image.open(BytesIO(data)).verify()
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(data))), levels(heatmap, 1.0))


def test_map_of_no_evidence_is_black() -> None:
    assert (pixels_of(encode_map(np.zeros((ROWS, COLUMNS), np.float32), scale=0.0)) == 0).all()


@pytest.mark.parametrize("right", [False, True], ids=["left", "flipped"])
@pytest.mark.parametrize("cell", [(4, 2), (8, 7), (11, 4)])
@pytest.mark.parametrize("long_side", [300, 600])
def test_overlay_is_coloured_at_the_peak(
    long_side: int, cell: tuple[int, int], right: bool
) -> None:
    pixels = breast(right=right)
    crop = preprocess(pixels, InputGeometry(256, 160)).crop
    heatmap = one_hot(*cell)
    colour = colourfulness(overlay(pixels, heatmap, crop, long_side=long_side))
    found = peak(heatmap, crop)
    assert found is not None
    zoom = long_side / 600
    assert colour.max() > 60, "the map is there but not to be seen"
    y, x = np.mgrid[: colour.shape[0], : colour.shape[1]]
    weight = colour / colour.sum()
    assert abs((y * weight).sum() - found.row * zoom) < 3
    assert abs((x * weight).sum() - found.column * zoom) < 3


def test_overlay_without_evidence_is_the_mammogram() -> None:
    picture = overlay(breast(), np.zeros((ROWS, COLUMNS), np.float32), CROPS[0], scale=0.0)
    assert colourfulness(picture).max() <= 1
    correlation = np.corrcoef(picture[..., 0].ravel(), breast().ravel())[0, 1]
    assert correlation > 0.99


def test_overlay_colours_nothing_outside_of_what_the_model_saw() -> None:
    crop = Crop(left=100, top=200, width=90, height=150, flipped=False)
    colour = colourfulness(overlay(breast(), np.ones((ROWS, COLUMNS), np.float32), crop))
    assert colour[210:340, 110:180].min() > 10
    colour[200:350, 100:190] = 0
    assert colour.max() == 0


def test_overlay_of_an_inverted_film_shows_it_turned() -> None:
    nothing = np.zeros((ROWS, COLUMNS), np.float32)
    expected = overlay(breast(), nothing, CROPS[0], scale=0.0)
    turned = overlay(255 - breast(), nothing, CROPS[0], scale=0.0, inverted=True)
    assert np.abs(expected.astype(int) - turned).mean() < 5


@pytest.mark.parametrize("pixels", [breast(), sixteen_bit(breast())], ids=["8 bit", "16 bit"])
@pytest.mark.parametrize("image_type", ["png", "jpeg"])
def test_overlay_is_of_the_type_asked_for(pixels: NDArray[Any], image_type: Any) -> None:
    shown = displayed(pixels, 1024, inverted=False)
    data = encode_overlay(shown, one_hot(3, 3), CROPS[0], scale=2.5, image_type=image_type)
    assert data.startswith(b"\x89PNG" if image_type == "png" else b"\xff\xd8")
    assert pixels_of(data).shape == (600, 400, 3)


@pytest.mark.parametrize("flipped", [False, True], ids=["left", "flipped"])
@pytest.mark.parametrize("box", [(0, 0, 400, 600), (7, 41, 301, 517), (391, 592, 9, 8)])
@pytest.mark.parametrize("size", [(600, 400), (601, 401)])
def test_overlay_looks_the_same_as_jpeg_and_as_png(
    size: tuple[int, int], box: tuple[int, int, int, int], flipped: bool
) -> None:
    shown = displayed(breast(*size), 1024, inverted=False)
    coarse = np.random.default_rng(0).random((6, 4), dtype=np.float32)
    heatmap = cv2.resize(coarse, (COLUMNS, ROWS), interpolation=cv2.INTER_LINEAR)
    jpeg, png = (
        pixels_of(
            encode_overlay(shown, heatmap, Crop(*box, flipped), scale=1.0, image_type=image_type)
        ).astype(np.float32)
        for image_type in ("jpeg", "png")
    )
    assert np.abs(jpeg - png).mean() < 2
    # a JPEG's colours are of half the size: compared without the finest detail
    blurred = [cv2.GaussianBlur(picture, (0, 0), 4) for picture in (jpeg, png)]
    assert np.abs(blurred[0] - blurred[1]).max() < 12


@pytest.mark.parametrize("size", [(320, 177), (321, 178), (319, 177)])
def test_overlay_holds_nothing_of_the_memory_around_the_picture(size: tuple[int, int]) -> None:
    shown, heatmap, box = np.zeros(size, np.uint8), one_hot(3, 3), Crop(0, 0, 60, 90, False)
    files = set()
    for filling in range(64):
        surroundings = np.full(size[0] * size[1] + 2, filling, np.uint8)
        del surroundings  # its memory is what the next arrays lie in
        files.add(encode_overlay(shown, heatmap, box, scale=2.5, image_type="jpeg"))
    assert len(files) == 1


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((600, 400), 300, (300, 200)),
        ((400, 600), 300, (200, 300)),
        ((600, 400), 64, (64, 43)),
        ((600, 400), 1024, (600, 400)),
    ],
)
def test_overlay_has_the_long_side_asked_for_but_never_invents_pixels(
    size: tuple[int, int], long_side: int, expected: tuple[int, int]
) -> None:
    crop = Crop(0, 0, size[1], size[0], flipped=False)
    picture = overlay(breast(*size), one_hot(0, 0), crop, long_side=long_side)
    assert picture.shape[:2] == expected


def test_overlay_of_any_image_that_can_be_prepared_can_be_drawn() -> None:
    rng = np.random.default_rng(0)
    drawn = 0
    for _ in range(300):
        rows, columns = (int(side) for side in np.exp(rng.uniform(0, 8, 2)).astype(int) + 1)
        pixels = np.zeros((rows, columns), np.uint8)
        top, left = int(rng.integers(rows)), int(rng.integers(columns))
        pixels[top : top + rows // 8 + 1, left : left + columns // 8 + 1] = 90
        try:
            crop = preprocess(pixels, InputGeometry(64, 64)).crop
        except Refusal:
            continue
        overlay(pixels, one_hot(3, 3), crop, long_side=64)
        drawn += 1
    assert drawn > 30
