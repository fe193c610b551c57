"""One image in every transfer syntax that the service reads, made by imagecodecs and pydicom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from typing import Any, Literal

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate, encapsulate_extended

from tests.pictures import dicom

OffsetTable = Literal["basic", "empty", "extended"]


# bits, and whether signed
DEPTHS = {
    "8 bit": (8, False),
    "12 bit": (12, False),
    "16 bit": (16, False),
    "signed 12 bit": (12, True),
    "signed 16 bit": (16, True),
}
UNSIGNED = ("8 bit", "12 bit", "16 bit")


@dataclass(frozen=True)
class Coding:
    """A transfer syntax, and one way to code a frame of so many bits in it.

    ``depths`` names what it can hold; ``apart`` is by how many values, at most, a pixel may come
    back changed.
    """

    syntax: str
    encode: Callable[[NDArray[Any], int], bytes]
    depths: tuple[str, ...] = tuple(DEPTHS)
    apart: int = 0


def picture(bits: int, *, signed: bool = False) -> NDArray[Any]:
    """A breast of 72 x 50 pixels that uses all values of so many bits."""
    rows, columns = np.mgrid[:72, :50]
    inside = ((rows - 36) / 30) ** 2 + (columns / 38) ** 2 < 1
    texture = np.random.default_rng(bits).normal(0, 0.03, inside.shape)
    part = np.where(inside, 0.35 + 0.4 * (columns / 50) + texture, 0.01)
    part[34:38, 10:14], part[0, -1] = 1, 0
    values = np.rint(part.clip(0, 1) * ((1 << bits) - 1)).astype(int)
    if signed:
        values -= 1 << (bits - 1)
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def run_lengths(pixels: NDArray[Any]) -> bytes:
    """PS3.5 G: a segment a byte, the most significant first; each row by itself."""
    segments = []
    for place in reversed(range(pixels.dtype.itemsize)):
        plane = pixels.view(np.uint8).reshape(*pixels.shape, -1)[..., place]
        segment = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in plane)
        segments.append(segment + b"\0" * (len(segment) % 2))
    starts = [64 + sum(map(len, segments[:i])) for i in range(len(segments))]
    header = np.array([len(segments), *starts], "<u4").tobytes()
    return header.ljust(64, b"\0") + b"".join(segments)


def _words(pixels: NDArray[Any], bits: int) -> NDArray[Any]:
    """JPEG knows no sign: it keeps the lower bits, in two's complement."""
    words = pixels.view(f"u{pixels.dtype.itemsize}")
    return words & words.dtype.type((1 << bits) - 1)


def _jpeg(pixels: NDArray[Any], bits: int, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(_words(pixels, bits), bitspersample=bits, **options))


def _jpeg_ls(pixels: NDArray[Any], bits: int, near: int = 0) -> bytes:
    return bytes(imagecodecs.jpegls_encode(_words(pixels, bits), level=near))


def _jpeg_2000(pixels: NDArray[Any], bits: int, **options: Any) -> bytes:
    options |= {"codecformat": "j2k", "bitspersample": bits}
    return bytes(imagecodecs.jpeg2k_encode(pixels, **options))


def htj2k(pixels: NDArray[Any], bits: int, **options: Any) -> bytes:
    return bytes(imagecodecs.htj2k_encode(pixels, **options))


LOSSLESS = {
    "encapsulated uncompressed": Coding("1.2.840.10008.1.2.1.98", lambda p, _: p.tobytes()),
    "RLE": Coding(uid.RLELossless, lambda p, _: run_lengths(p)),
    "JPEG lossless SV1": Coding(uid.JPEGLosslessSV1, partial(_jpeg, lossless=True, predictor=1)),
    **{
        f"JPEG lossless, selection value {value}": Coding(
            uid.JPEGLossless, partial(_jpeg, lossless=True, predictor=value)
        )
        for value in range(1, 8)
    },
    "JPEG-LS": Coding(uid.JPEGLSLossless, _jpeg_ls),
    "JPEG 2000": Coding(uid.JPEG2000Lossless, partial(_jpeg_2000, reversible=True)),
    "HTJ2K": Coding(uid.HTJ2KLossless, partial(htj2k, reversible=True)),
    "HTJ2K, RPCL": Coding(
        uid.HTJ2KLosslessRPCL, partial(htj2k, reversible=True, tlm=True, tilepart=1)
    ),
    "HTJ2K, tiles": Coding(uid.HTJ2K, partial(htj2k, reversible=True, tile=(32, 32))),
}
LOSSY = {
    "JPEG baseline": Coding(
        uid.JPEGBaseline8Bit, partial(_jpeg, level=95), depths=("8 bit",), apart=12
    ),
    "JPEG extended": Coding(
        uid.JPEGExtended12Bit, partial(_jpeg, level=95), depths=("8 bit", "12 bit"), apart=12
    ),
    "JPEG-LS, near-lossless": Coding(
        uid.JPEGLSNearLossless, partial(_jpeg_ls, near=3), depths=UNSIGNED, apart=3
    ),
    "JPEG 2000, irreversible": Coding(uid.JPEG2000, partial(_jpeg_2000, level=90), apart=120),
    "HTJ2K, irreversible": Coding(uid.HTJ2K, partial(htj2k, level=0.001), apart=120),
}
CODINGS = LOSSLESS | LOSSY
CASES = {
    f"{name}, {depth}": (coding, depth)
    for name, coding in CODINGS.items()
    for depth in coding.depths
}


def values(depth: str) -> NDArray[np.int64]:
    """The stored values of the picture, as unsigned numbers that start at the least."""
    bits, signed = DEPTHS[depth]
    return picture(bits, signed=signed).astype(np.int64) + ((1 << bits - 1) if signed else 0)


def uncompressed(depth: str, **tags: Any) -> bytes:
    bits, signed = DEPTHS[depth]
    tags = {"BitsStored": bits, "HighBit": bits - 1} | tags
    return dicom(picture(bits, signed=signed), **tags)


def compressed(case: str, **options: Any) -> bytes:
    """The picture in one of ``CASES``; ``options`` are those of ``encapsulated``."""
    coding, depth = CASES[case]
    return encapsulated(uncompressed(depth), frame_of(case), coding.syntax, **options)


@cache
def frame_of(case: str) -> bytes:
    coding, depth = CASES[case]
    bits, signed = DEPTHS[depth]
    return coding.encode(picture(bits, signed=signed), bits)


def encapsulated(
    source: bytes,
    frame: bytes,
    syntax: str,
    *,
    offset_table: OffsetTable = "basic",
    fragments: int = 1,
) -> bytes:
    """The file ``source`` with the compressed ``frame`` in place of its pixels."""
    dataset = pydicom.dcmread(BytesIO(source))
    if offset_table == "extended":
        coded, offsets, lengths = encapsulate_extended([frame])
        dataset.PixelData = coded
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    else:
        dataset.PixelData = encapsulate(
            [frame], fragments_per_frame=fragments, has_bot=offset_table == "basic"
        )
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    target = BytesIO()
    dataset.save_as(target, implicit_vr=False, little_endian=True)
    return target.getvalue()
