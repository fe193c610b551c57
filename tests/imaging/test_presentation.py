"""Greys as a radiologist sees them: against dcmtk, and against the formulas of the standard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from app.imaging.decode import decode
from app.imaging.preprocess import InputGeometry, crop_breast
from app.problems import Refusal
from tests.dcmtk import converted, shown_by_dcmtk
from tests.pictures import breast, dicom, item, lut, patched

RNG = np.random.default_rng(0)


def ramp(bits: int, signed: bool = False) -> NDArray[Any]:
    """Every value of so many bits, once, [rows, columns] of 8 or 16 bit."""
    values = np.arange(1 << bits) - (1 << (bits - 1) if signed else 0)
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    return values.astype(kind).reshape(-1, 16)


def shown(data: bytes) -> NDArray[Any]:
    return decode(data, 1_000_000)[0]


@dataclass(frozen=True)
class Case:
    """Pixels and tags; the options that make dcm2pnm do the same; the depth of our greys, and how
    many of their levels the two may be apart: dcmtk cuts off where the service rounds."""

    pixels: NDArray[Any]
    tags: dict[str, Any]
    options: Sequence[str]
    bits: int
    tolerance: float = 1


def twelve(**tags: Any) -> dict[str, Any]:
    return {"BitsStored": 12, "HighBit": 11} | tags


CURVE = (4095 * (np.arange(4096) / 4095) ** 2).astype(int)
WINDOW, LUT, WHOLE = ("+Wi", "1"), ("+Wl", "1"), ("-W",)
INVERSE = {"PhotometricInterpretation": "MONOCHROME1"}
CASES = {
    "8 bit": Case(ramp(8), {}, WHOLE, 8),
    "16 bit": Case(ramp(16), {}, WHOLE, 16),
    "12 of 16 bit": Case(ramp(12), twelve(), WHOLE, 12),
    "10 of 16 bit": Case(ramp(10), {"BitsStored": 10, "HighBit": 9}, WHOLE, 10),
    "12 of 16 bit at the top": Case(ramp(12) << 4, {"BitsStored": 12, "HighBit": 15}, WHOLE, 12),
    "noise above the stored bits": Case(
        ramp(12) | (RNG.integers(0, 16, (256, 16)) << 12).astype(np.uint16), twelve(), WHOLE, 12
    ),
    "signed 8 bit": Case(ramp(8, True), {}, WHOLE, 8),
    "signed 16 bit": Case(ramp(16, True), {}, WHOLE, 16),
    "signed 12 of 16 bit": Case(ramp(12, True), twelve(), WHOLE, 12),
    "signed 12 of 16 bit without extended sign": Case(
        ramp(12), twelve(PixelRepresentation=1), WHOLE, 12
    ),
    "MONOCHROME1": Case(ramp(12), twelve(**INVERSE), WHOLE, 12),
    "MONOCHROME1, signed": Case(ramp(12, True), twelve(**INVERSE), WHOLE, 12),
    "MONOCHROME1, shape INVERSE": Case(
        ramp(12), twelve(**INVERSE, PresentationLUTShape="INVERSE"), WHOLE, 12
    ),
    "MONOCHROME1, shape IDENTITY": Case(
        ramp(12), twelve(**INVERSE, PresentationLUTShape="IDENTITY"), WHOLE, 12
    ),
    "MONOCHROME2, shape IDENTITY": Case(
        ramp(12), twelve(PresentationLUTShape="IDENTITY"), WHOLE, 12
    ),
    "MONOCHROME2, shape INVERSE": Case(ramp(12), twelve(PresentationLUTShape="INVERSE"), WHOLE, 12),
    "rescale": Case(ramp(12), twelve(RescaleSlope="2", RescaleIntercept="-1000"), WHOLE, 12),
    "rescale, negative slope": Case(
        ramp(12), twelve(RescaleSlope="-1.5", RescaleIntercept="4095"), WHOLE, 12
    ),
    "rescale, then window": Case(
        ramp(12),
        twelve(RescaleSlope="2", RescaleIntercept="-1000", WindowCenter="0", WindowWidth="1500"),
        WINDOW,
        16,
    ),
    "rescale by a fraction, then window": Case(
        ramp(12),
        twelve(
            RescaleSlope="0.25", RescaleIntercept="-12.5", WindowCenter="500", WindowWidth="300"
        ),
        WINDOW,
        16,
        tolerance=1.5 * 65535 / 299,  # dcmtk keeps no fractions of a rescaled value
    ),
    "modality LUT": Case(
        ramp(12), twelve(ModalityLUTSequence=[lut(CURVE[::-1] * 16, 0, 16)]), WHOLE, 16
    ),
    "modality LUT, then window": Case(
        ramp(12),
        twelve(
            ModalityLUTSequence=[lut(CURVE * 16, 0, 16)], WindowCenter="30000", WindowWidth="20000"
        ),
        WINDOW,
        16,
    ),
    "window": Case(ramp(12), twelve(WindowCenter="2000", WindowWidth="1000"), WINDOW, 16),
    "window, 8 bit": Case(ramp(8), {"WindowCenter": "100", "WindowWidth": "80"}, WINDOW, 8),
    "window, signed": Case(
        ramp(12, True), twelve(WindowCenter="-300", WindowWidth="1000"), WINDOW, 16
    ),
    "window, MONOCHROME1": Case(
        ramp(12), twelve(**INVERSE, WindowCenter="2000", WindowWidth="1000"), WINDOW, 16
    ),
    "window one wide": Case(ramp(12), twelve(WindowCenter="2000", WindowWidth="1"), WINDOW, 16),
    "window with fractions": Case(
        ramp(12), twelve(WindowCenter="1999.5", WindowWidth="1000.5"), WINDOW, 16
    ),
    "several windows": Case(
        ramp(12),
        twelve(WindowCenter=["2000", "1000"], WindowWidth=["1000", "300"]),
        WINDOW,
        16,
    ),
    "sigmoid": Case(
        ramp(12),
        twelve(WindowCenter="2000", WindowWidth="1000", VOILUTFunction="SIGMOID"),
        WINDOW,
        16,
    ),
    "VOI LUT": Case(ramp(12), twelve(VOILUTSequence=[lut(CURVE, 0, 12)]), LUT, 12),
    "VOI LUT, deeper than the pixels": Case(
        ramp(8), {"VOILUTSequence": [lut(np.arange(256) ** 2, 0, 16)]}, LUT, 16
    ),
    "VOI LUT, MONOCHROME1": Case(
        ramp(12), twelve(**INVERSE, VOILUTSequence=[lut(CURVE, 0, 12)]), LUT, 12
    ),
    "VOI LUT of part of the values": Case(
        ramp(12), twelve(VOILUTSequence=[lut(CURVE[::4], 500, 12)]), LUT, 12
    ),
    "VOI LUT from a negative value on": Case(
        ramp(12, True), twelve(VOILUTSequence=[lut(CURVE, -2048, 12)]), LUT, 12
    ),
    "VOI LUT of 65536 entries": Case(
        ramp(16), {"VOILUTSequence": [lut(np.arange(65536)[::-1], 0, 16)]}, LUT, 16
    ),
    "VOI LUT of 8 bit, an entry a word": Case(
        ramp(8), {"VOILUTSequence": [lut(np.arange(256)[::-1], 0, 8)]}, LUT, 8
    ),
    "VOI LUT of 8 bit, two entries a word": Case(
        ramp(8), {"VOILUTSequence": [lut(np.arange(256)[::-1], 0, 8, packed=True)]}, LUT, 8
    ),
    "VOI LUT after rescale": Case(
        ramp(12),
        twelve(RescaleSlope="1", RescaleIntercept="-1024", VOILUTSequence=[lut(CURVE, -1024, 12)]),
        LUT,
        12,
    ),
    "VOI LUT before window": Case(
        ramp(12),
        twelve(VOILUTSequence=[lut(CURVE, 0, 12)], WindowCenter="2000", WindowWidth="1000"),
        LUT,
        12,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_greys_are_those_that_dcmtk_shows(name: str) -> None:
    case = CASES[name]
    data = dicom(case.pixels, **case.tags)
    expected = shown_by_dcmtk(data, *case.options)
    ours = shown(data)
    assert ours.dtype == (np.uint8 if case.bits == 8 else np.uint16)
    levels = (1 << case.bits) - 1
    assert len(np.unique(ours)) > 1
    assert np.abs(ours - expected.astype(float) * levels / 65535).max() <= case.tolerance


@pytest.mark.parametrize("option", ["+ti", "+tb"], ids=["implicit", "big endian"])
@pytest.mark.parametrize(
    "name", [name for name in CASES if "LUT" in name or "8 bit" in name or "16 bit" in name]
)
def test_greys_are_the_same_in_every_encoding_of_the_header(name: str, option: str) -> None:
    """LUT data, LUT descriptors and pixels are words; implicit VR leaves their sign open."""
    data = dicom(CASES[name].pixels, **CASES[name].tags)
    np.testing.assert_array_equal(shown(converted("dcmconv", data, option)), shown(data))


# what dcm2pnm does not know, by the formulas of the standard


@pytest.mark.parametrize(
    ("function", "center", "width", "expected"),
    [
        # PS3.3 C.11.2.1.2.1, note: the examples of the standard
        ("LINEAR", 2048, 4096, lambda x: x / 4095),
        ("LINEAR", 2048, 1, lambda x: (x > 2047.5).astype(float)),
        ("LINEAR", 0, 100, lambda x: ((x + 0.5) / 99 + 0.5).clip(0, 1)),
        ("LINEAR_EXACT", 2048, 4096, lambda x: x / 4096),
        ("LINEAR_EXACT", 2048, 1, lambda x: (x - 2047.5).clip(0, 1)),
        ("LINEAR_EXACT", 1000, 0.5, lambda x: ((x - 1000) / 0.5 + 0.5).clip(0, 1)),
        ("SIGMOID", 2048, 1000, lambda x: 1 / (1 + np.exp(-4 * (x - 2048) / 1000))),
        ("SIGMOID", 2048, 0.01, lambda x: np.select([x < 2048, x > 2048], [0.0, 1.0], 0.5)),
    ],
)
def test_window_follows_its_function(
    function: str,
    center: float,
    width: float,
    expected: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> None:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    tags = twelve(WindowCenter=str(center), WindowWidth=str(width), VOILUTFunction=function)
    part = expected(np.arange(4096.0)).reshape(-1, 16)
    np.testing.assert_allclose(shown(dicom(ramp(12), **tags)), part * 65535, atol=0.51)


def test_window_without_a_function_is_linear() -> None:
    window = twelve(WindowCenter="2000", WindowWidth="1000")
    linear = shown(dicom(ramp(12), **window, VOILUTFunction="LINEAR"))
    np.testing.assert_array_equal(shown(dicom(ramp(12), **window)), linear)
    np.testing.assert_array_equal(shown(dicom(ramp(12), **window, VOILUTFunction="")), linear)


@pytest.mark.parametrize("half", [{"WindowCenter": "100"}, {"WindowWidth": "100"}])
def test_half_a_window_is_none(half: dict[str, str]) -> None:
    np.testing.assert_array_equal(shown(dicom(ramp(12), **twelve(**half))), ramp(12))


@pytest.mark.parametrize(
    "padding",
    [
        {"PixelPaddingValue": 4095},
        {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095},
        {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4000},
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": "1000", "WindowWidth": "2000"}])
def test_padding_is_background_and_changes_no_other_grey(
    window: dict[str, str], photometric: str, padding: dict[str, int]
) -> None:
    tags = twelve(PhotometricInterpretation=photometric, **window)
    greys = shown(dicom(ramp(12), **tags, **padding))
    is_padding = ramp(12) >= min(padding.values())
    assert (greys[is_padding] == 0).all()
    without = shown(dicom(ramp(12), **tags))
    np.testing.assert_array_equal(greys[~is_padding], without[~is_padding])


@pytest.mark.parametrize("written", [-2048, 65536 - 2048], ids=["signed", "as if unsigned"])
def test_padding_of_signed_pixels_may_be_negative(written: int) -> None:
    dataset = pydicom.dcmread(BytesIO(dicom(ramp(12, True), **twelve(**INVERSE))))
    dataset.add_new("PixelPaddingValue", "SS" if written < 0 else "US", written)
    greys = shown(patched(dataset)).ravel()
    assert greys[0] == 0
    np.testing.assert_array_equal(greys[1:], np.arange(4094, -1, -1))


def test_padding_does_not_spoil_the_crop() -> None:
    """Here it is the lowest value of a MONOCHROME1 image: inverted, it would be white."""
    plain = np.pad(breast().astype(np.uint16) * 15, ((0, 0), (0, 100)))
    pixels = 4095 - plain
    pixels[:, -100:] = 0
    greys = shown(dicom(pixels, **twelve(**INVERSE, PixelPaddingValue=0)))
    size = InputGeometry(256, 160)
    assert crop_breast(greys, size)[1] == crop_breast(plain, size)[1]
    spoilt = shown(dicom(pixels, **twelve(**INVERSE)))
    assert crop_breast(spoilt, size)[1] != crop_breast(plain, size)[1]


@pytest.mark.parametrize("groups", ["SharedFunctionalGroups", "PerFrameFunctionalGroups"])
def test_single_frame_of_a_multi_frame_object_is_shown_by_its_functional_groups(
    groups: str,
) -> None:
    """Projections of enhanced objects keep rescale and window there (PS3.3 C.7.6.16.2)."""
    window = {"WindowCenter": "500", "WindowWidth": "300"}
    rescale = {"RescaleSlope": "0.5", "RescaleIntercept": "-10"}
    group = item(
        FrameVOILUTSequence=[item(**window)], PixelValueTransformationSequence=[item(**rescale)]
    )
    grouped = dicom(ramp(12), **twelve(NumberOfFrames=1), **{f"{groups}Sequence": [group]})
    np.testing.assert_array_equal(
        shown(grouped), shown(dicom(ramp(12), **twelve(**window, **rescale)))
    )


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": "2000", "WindowWidth": "0.5"},
        {"WindowCenter": "2000", "WindowWidth": "0"},
        {"WindowCenter": "2000", "WindowWidth": "-1000"},
        {"WindowCenter": "2000", "WindowWidth": "0", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "2000", "WindowWidth": "0", "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": "2000", "WindowWidth": "1000", "VOILUTFunction": "CUBIC"},
        {"RescaleSlope": "0", "RescaleIntercept": "0"},
        {"RescaleSlope": "1e308", "RescaleIntercept": "0"},
        {"RescaleSlope": "1e-9", "RescaleIntercept": "1e300"},
        {"VOILUTSequence": [lut(CURVE[:100], 0, 12, entries=200)]},
        {"VOILUTSequence": [lut(CURVE, 0, 0)]},
        {"VOILUTSequence": [lut(CURVE, 0, 17)]},
        {"VOILUTSequence": [item(LUTDescriptor=None)]},
        {"HighBit": 10},
        {"HighBit": 16},
    ],
    ids=str,
)
def test_transformation_that_is_none_is_refused(tags: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        shown(dicom(ramp(12), **twelve(**tags)))
    assert caught.value.code == "broken_image"


@pytest.mark.parametrize(
    "keyword", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"]
)
@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "wide"])
def test_number_that_is_none_is_refused(keyword: str, text: str) -> None:
    tags = {"WindowCenter": "2000", "WindowWidth": "1000", keyword: "1234567"}
    data = dicom(ramp(12), **twelve(**tags))
    assert data.count(b"1234567") == 1
    with pytest.raises(Refusal) as caught:
        shown(data.replace(b"1234567", text.ljust(7).encode()))
    assert caught.value.code == "broken_image"
