"""Bytes of every kind -> grey pixels, or a refusal that says why."""

from __future__ import annotations

import time
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from app.imaging.decode import decode
from app.imaging.facts import ImageFacts
from app.problems import Refusal
from tests.pictures import (
    DECODABLE,
    breast,
    dicom,
    encoded,
    png,
    png_claiming,
    real_dicom,
    sixteen_bit,
)

MAX_PIXELS = 50_000_000
QUICKLY = 1.0  # seconds: far below what decoding a bomb would take
EIGHT_BIT = breast()
SIXTEEN_BIT = sixteen_bit(EIGHT_BIT)


def decoded(data: bytes) -> tuple[NDArray[Any], ImageFacts]:
    return decode(data, MAX_PIXELS)


def refusal_of(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(Refusal) as caught:
        decode(data, max_pixels)
    return caught.value.code


# DICOM, real files


@pytest.mark.parametrize("encoding", DECODABLE)
def test_every_dicom_encoding_gives_the_same_pixels(encoding: str) -> None:
    expected = pydicom.dcmread(BytesIO(real_dicom("explicit"))).pixel_array
    pixels, facts = decoded(real_dicom(encoding))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, expected)
    assert (facts.format, facts.rows, facts.columns, facts.bits) == ("dicom", 592, 328, 16)


def test_dicom_cut_off_within_its_pixels_is_refused() -> None:
    assert refusal_of(real_dicom("truncated")) == "broken_image"


@pytest.mark.parametrize("encoding", DECODABLE)
def test_dicom_cut_in_half_is_refused(encoding: str) -> None:
    data = real_dicom(encoding)
    assert refusal_of(data[: len(data) // 2]) in ("broken_image", "no_pixels")


@pytest.mark.parametrize("encoding", DECODABLE)
def test_dicom_with_damaged_bytes_is_decoded_or_refused_but_never_fails(encoding: str) -> None:
    original = real_dicom(encoding)
    rng = np.random.default_rng(0)
    for _ in range(12):
        data = bytearray(original)
        for place in rng.integers(132, len(data), 20):
            data[place] = rng.integers(256)
        for place in rng.integers(132, 1200, 3):  # the header is small: hit it too
            data[place] = rng.integers(256)
        try:
            pixels, _ = decoded(bytes(data))
        except Refusal:
            continue
        assert pixels.ndim == 2


# DICOM, made files


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"PixelData": None}, "no_pixels"),
        ({"Rows": None}, "no_pixels"),
        ({"Rows": 0}, "no_pixels"),
        ({"NumberOfFrames": 2}, "several_frames"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "unsupported_photometric"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unsupported_photometric"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "unsupported_depth"),
        ({"BitsStored": 0}, "unsupported_depth"),
        ({"BitsStored": 12, "BitsAllocated": 8}, "unsupported_depth"),
        ({"Rows": 601}, "broken_image"),
        ({"Rows": 60000, "Columns": 60000}, "too_many_pixels"),
    ],
)
def test_dicom_that_cannot_be_read_is_refused_for_the_right_reason(
    tags: dict[str, Any], code: str
) -> None:
    assert refusal_of(dicom(EIGHT_BIT, **tags)) == code


def test_transfer_syntax_that_is_not_read_is_named_as_the_reason() -> None:
    mpeg = "1.2.840.10008.1.2.4.100"
    dataset = pydicom.dcmread(BytesIO(dicom(EIGHT_BIT)))
    dataset.PixelData = encapsulate([b"\0" * 64])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(mpeg)
    target = BytesIO()
    dataset.save_as(target, implicit_vr=False, little_endian=True)
    assert refusal_of(target.getvalue()) == "unsupported_transfer_syntax"


def test_dicom_without_any_data_set_is_refused() -> None:
    assert refusal_of(b"\0" * 128 + b"DICM") in ("broken_image", "no_pixels")


# PNG, JPEG, TIFF


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("original", [EIGHT_BIT, SIXTEEN_BIT], ids=["8 bit", "16 bit"])
def test_lossless_formats_keep_every_pixel(suffix: str, original: NDArray[Any]) -> None:
    pixels, facts = decoded(encoded(suffix, original))
    np.testing.assert_array_equal(pixels, original)
    assert pixels.dtype == original.dtype
    assert facts == ImageFacts(suffix[1:], 600, 400, original.dtype.itemsize * 8)


def test_jpeg_is_read_close_to_its_original() -> None:
    pixels, facts = decoded(encoded(".jpg", EIGHT_BIT))
    assert np.abs(pixels.astype(int) - EIGHT_BIT).mean() < 3
    assert facts == ImageFacts("jpeg", 600, 400, 8)


def _pillow(pixels: NDArray[Any], kind: str, **options: Any) -> bytes:
    target = BytesIO()
    Image.fromarray(pixels).save(target, kind, **options)
    return target.getvalue()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff_is_read(compression: str) -> None:
    pixels, _ = decoded(_pillow(EIGHT_BIT, "TIFF", compression=compression))
    np.testing.assert_array_equal(pixels, EIGHT_BIT)


@pytest.mark.parametrize("channels", [3, 4], ids=["rgb", "rgba"])
@pytest.mark.parametrize("original", [EIGHT_BIT, SIXTEEN_BIT], ids=["8 bit", "16 bit"])
def test_grey_stored_as_colour_is_read_as_grey_without_a_warning(
    original: NDArray[Any], channels: int
) -> None:
    stacked = np.stack([original] * 3, axis=-1)
    if channels == 4:
        stacked = np.dstack([stacked, np.full_like(original, np.iinfo(original.dtype).max)])
    pixels, facts = decoded(png(stacked))
    np.testing.assert_array_equal(pixels, original)
    assert facts.warnings == ()


def test_grey_with_transparency_is_read_as_grey() -> None:
    alpha = np.full_like(EIGHT_BIT, 255)
    pixels, facts = decoded(_pillow(np.dstack([EIGHT_BIT, alpha]), "PNG"))
    np.testing.assert_array_equal(pixels, EIGHT_BIT)
    assert facts.warnings == ()


def test_colour_photo_is_read_with_a_warning() -> None:
    photo = cv2.applyColorMap(EIGHT_BIT, cv2.COLORMAP_VIRIDIS)
    for suffix in (".jpg", ".png"):
        pixels, facts = decoded(encoded(suffix, photo))
        assert pixels.shape == EIGHT_BIT.shape
        assert [code for code, _ in facts.warnings] == ["colour_image"]


def test_phone_photo_with_an_embedded_preview_is_read() -> None:
    """Phones append a preview or gain map to the JPEG: the multi-picture format, CIPA DC-007."""
    target = BytesIO()
    preview = Image.fromarray(EIGHT_BIT[::4, ::4].copy())
    Image.fromarray(EIGHT_BIT).save(target, "MPO", save_all=True, append_images=[preview])
    pixels, facts = decoded(target.getvalue())
    assert pixels.shape == EIGHT_BIT.shape
    assert facts.format == "jpeg"


def test_tiff_of_several_pages_is_refused() -> None:
    target = BytesIO()
    page = Image.fromarray(EIGHT_BIT)
    page.save(target, "TIFF", save_all=True, append_images=[page])
    assert refusal_of(target.getvalue()) == "several_frames"


def test_tiff_of_countless_pages_is_refused_at_once() -> None:
    """Each page is looked for among all before it, so that the time grows with the square."""
    data = encoded(".tiff", EIGHT_BIT)
    data += b"\0" * (len(data) % 2)
    first = int.from_bytes(data[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    page, chain = data[first:end], bytearray(data)
    chain[end : end + 4] = len(data).to_bytes(4, "little")
    for number in range(1, 30_001):
        chain += page + (len(data) + number * (len(page) + 4)).to_bytes(4, "little")
    start = time.perf_counter()
    assert refusal_of(bytes(chain)) == "several_frames"
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_tiff_of_another_depth_is_refused(dtype: type) -> None:
    assert refusal_of(_pillow(EIGHT_BIT.astype(dtype), "TIFF")) == "unsupported_depth"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"\0", "unsupported_format"),
        (b"hello, this is no image\n" * 50, "unsupported_format"),
        (bytes(range(256)) * 20, "unsupported_format"),
        (_pillow(EIGHT_BIT, "GIF"), "unsupported_format"),
        (_pillow(EIGHT_BIT, "BMP"), "unsupported_format"),
        (b"%PDF-1.7\n%" + b"x" * 400, "unsupported_format"),
    ],
    ids=["empty", "one byte", "text", "garbage", "gif", "bmp", "pdf"],
)
def test_what_is_no_image_is_refused(data: bytes, code: str) -> None:
    assert refusal_of(data) == code


@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff"])
@pytest.mark.parametrize("original", [EIGHT_BIT, SIXTEEN_BIT], ids=["8 bit", "16 bit"])
def test_file_cut_short_is_refused(suffix: str, part: float, original: NDArray[Any]) -> None:
    """Never the half picture: what is missing may be the cancer."""
    if suffix == ".jpg" and original.dtype != np.uint8:
        pytest.skip("JPEG has no 16 bit")
    data = encoded(suffix, original)
    assert refusal_of(data[: int(part * len(data))]) == "broken_image"


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
def test_jpeg_cut_short_and_closed_again_is_refused(colour: bool, part: float) -> None:
    """libjpeg fills what is missing with middle grey."""
    shown = cv2.applyColorMap(EIGHT_BIT, cv2.COLORMAP_VIRIDIS) if colour else EIGHT_BIT
    data = encoded(".jpg", shown)
    assert refusal_of(data[: int(part * len(data))] + b"\xff\xd9") == "broken_image"


@pytest.mark.parametrize("value", [0, 128, 255])
def test_jpeg_that_ends_in_middle_grey_is_whole(value: int) -> None:
    pixels = EIGHT_BIT.copy()
    pixels[-80:] = value
    assert np.abs(decoded(encoded(".jpg", pixels))[0].astype(int) - pixels).mean() < 3


def test_progressive_jpeg_is_read_unless_it_has_countless_scans() -> None:
    """Each scan costs a pass over the whole picture, and takes a dozen bytes."""
    data = _pillow(EIGHT_BIT, "JPEG", progressive=True)
    assert np.abs(decoded(data)[0].astype(int) - EIGHT_BIT).mean() < 3
    last = data.rindex(b"\xff\xda")
    assert refusal_of(data[:last] + data[last:-2] * 100 + data[-2:]) == "broken_image"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff"])
def test_file_with_damaged_bytes_is_decoded_or_refused_but_never_fails(suffix: str) -> None:
    original = encoded(suffix, EIGHT_BIT)
    rng = np.random.default_rng(1)
    for _ in range(40):
        data = bytearray(original)
        for place in (*rng.integers(0, len(data), 5), *rng.integers(0, 200, 2)):
            data[place] = rng.integers(256)
        try:
            pixels, _ = decoded(bytes(data))
        except Refusal:
            continue
        assert pixels.ndim == 2


# decompression bombs


def test_png_that_claims_too_many_pixels_is_refused_before_decoding() -> None:
    start = time.perf_counter()
    assert refusal_of(png_claiming(60_000, 60_000)) == "too_many_pixels"
    assert time.perf_counter() - start < QUICKLY


def test_png_chunk_longer_than_the_file_is_refused_before_room_is_made_for_it() -> None:
    """Opencv made room for four gigabytes, and took six seconds."""
    data = png(EIGHT_BIT)
    chunk = data.index(b"IDAT") - 4
    start = time.perf_counter()
    greedy = data[:chunk] + (2**32 - 20).to_bytes(4) + data[chunk + 4 :]
    assert refusal_of(greedy) == "broken_image"
    assert time.perf_counter() - start < QUICKLY


def test_pixel_limit_is_ours_alone() -> None:
    """A raised limit is honoured: the reason is then the missing pixels, not their number."""
    claimed = png_claiming(20_000, 20_000)
    assert refusal_of(claimed, max_pixels=399_999_999) == "too_many_pixels"
    assert refusal_of(claimed, max_pixels=400_000_000) == "broken_image"


@pytest.mark.parametrize(
    "make",
    [png, lambda p: encoded(".jpg", p), lambda p: encoded(".tiff", p), dicom],
    ids=["png", "jpeg", "tiff", "dicom"],
)
def test_pixel_limit_is_inclusive(make: Callable[[NDArray[Any]], bytes]) -> None:
    data = make(EIGHT_BIT)
    assert decode(data, 600 * 400)[0].shape == (600, 400)
    assert refusal_of(data, 600 * 400 - 1) == "too_many_pixels"


def _peak_bytes_of_refusing(data: bytes) -> tuple[str, int]:
    """The refusal's code under a limit of a million pixels, and the memory that it took."""
    tracemalloc.start()
    try:
        return refusal_of(data, max_pixels=1_000_000), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def deflated_bomb() -> tuple[bytes, bytes]:
    """Meta information, and 256 MiB of zeros deflated to a thousandth."""
    data = real_dicom("deflated")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = b"\x09\x00\x01\x00OB\0\0" + (2**28).to_bytes(4, "little")
    packed = [packer.compress(element), packer.compress(bytes(2**28)), packer.flush()]
    return data[: 144 + int.from_bytes(data[140:144], "little")], b"".join(packed)


@pytest.mark.parametrize(
    "group_length", [None, 0, 1, 2**31], ids=["true", "missing", "too small", "too large"]
)
def test_deflated_dicom_bomb_is_refused_before_it_is_inflated(
    deflated_bomb: tuple[bytes, bytes], group_length: int | None
) -> None:
    """Whatever the group length of the meta information says: readers do without it."""
    meta, packed = deflated_bomb
    if group_length == 0:
        meta = meta[:132] + meta[144:]
    elif group_length is not None:
        meta = meta[:140] + group_length.to_bytes(4, "little") + meta[144:]
    code, peak = _peak_bytes_of_refusing(meta + packed)
    assert peak < 64 * 2**20
    assert code in ("too_many_pixels", "broken_image")


def _encapsulated(frame: bytes, syntax: str, pixels: NDArray[Any]) -> bytes:
    dataset = pydicom.dcmread(BytesIO(dicom(pixels)))
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    target = BytesIO()
    dataset.save_as(target, implicit_vr=False, little_endian=True)
    return target.getvalue()


SMALL = EIGHT_BIT[::8, ::8].copy()
LARGE = np.zeros((8000, 8000), np.uint8)
RLE_HEADER = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "jpeg": (lambda: encoded(".jpg", LARGE), JPEGBaseline8Bit),
    "jpeg lossless": (lambda: bytes(imagecodecs.ljpeg_encode(LARGE)), JPEGLosslessSV1),
    "jpeg-ls": (lambda: bytes(imagecodecs.jpegls_encode(LARGE)), JPEGLSLossless),
    "jpeg 2000": (
        lambda: bytes(imagecodecs.jpeg2k_encode(LARGE, codecformat="j2k", reversible=True)),
        JPEG2000Lossless,
    ),
    # a pair of bytes stands for 128 zeros
    "rle": (lambda: RLE_HEADER + b"\x81\0" * 2_000_000, RLELossless),
}


@pytest.mark.parametrize("codec", BOMBS)
def test_compressed_pixels_larger_than_the_header_says_are_refused_before_decoding(
    codec: str,
) -> None:
    make, syntax = BOMBS[codec]
    code, peak = _peak_bytes_of_refusing(_encapsulated(make(), syntax, SMALL))
    assert code in ("too_many_pixels", "broken_image")
    assert peak < 48 * 2**20


def test_limit_of_the_deflated_form_leaves_room_for_the_largest_image() -> None:
    """1100 x 1000 pixels of 16 bit, deflated, under a limit of just that many pixels."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 65535, (1100, 1000), dtype=np.uint16)
    dataset = pydicom.dcmread(BytesIO(dicom(pixels)))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    target = BytesIO()
    dataset.save_as(target)
    np.testing.assert_array_equal(decode(target.getvalue(), 1_100_000)[0], pixels)


@pytest.mark.parametrize("keyword", ["Rows", "PixelData", "BitsStored"])
def test_refusal_of_a_broken_file_quotes_nothing_of_it(keyword: str) -> None:
    with pytest.raises(Refusal) as caught:
        decoded(dicom(EIGHT_BIT, PatientName="Zyx^Marker", **{keyword: None}))
    assert "Zyx" not in caught.value.detail


@pytest.mark.parametrize("encoding", ["explicit", "deflated"])
def test_header_of_countless_elements_is_not_read_to_its_end(encoding: str) -> None:
    """A million empty ones took pydicom seconds; deflated, they are a few kilobytes."""
    data = real_dicom(encoding)
    start = 132 + 12 + int.from_bytes(data[140:144], "little")
    body = b"".join(
        b"\x09\x00" + number.to_bytes(2, "little") + b"LO\0\0" for number in range(60_000)
    )
    if encoding == "deflated":
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
    with pytest.raises(Refusal) as caught:
        decode(data[:start] + body, 10**6)
    assert caught.value.code == "broken_image"
    assert "more elements" in caught.value.detail
