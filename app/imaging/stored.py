"""DICOM pixel data in any transfer syntax -> words, and the stored value that each word means.

imagecodecs decodes what is compressed. The size is read from a compressed frame before anything is
decoded, and no frame is believed that is not whole: codecs fill what is missing with grey or zeros.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_fragments

from app.imaging import jpeg, jpeg2000, openjpeg
from app.imaging.wavelet import Words
from app.problems import Refusal

_ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"  # PS3.5 A.4.11
_JPEG = {
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
}
_JPEG_LS = {uid.JPEGLSLossless, uid.JPEGLSNearLossless}
_JPEG_2000 = {
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
}
_LOSSY = {
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.HTJ2K,
}
TRANSFER_SYNTAXES = frozenset(
    {*uid.UncompressedTransferSyntaxes, _ENCAPSULATED_UNCOMPRESSED, uid.RLELossless}
    | _JPEG
    | _JPEG_LS
    | _JPEG_2000
)  # all that are read
_RLE_HEADER_BYTES = 64
_RLE_PADDING = 16  # bytes beyond the last pixel that a segment may decode to
# Bytes of a compressed picture of a single grey: half a bit a pixel, two for lossless JPEG, and
# headers. What is larger and decodes to one grey was not decoded.
_HEADER_BYTES = 4096
_FLAT_PIXELS_A_BYTE, _FLAT_PIXELS_A_BYTE_OF_LOSSLESS_JPEG = 16, 4
# Of JPEG 2000 alone: a film of 12 megapixels takes seconds of a core. Who looks at one waits for it
_THREADS = min(4, os.cpu_count() or 1)
_MOST_OVERSHOOT = 1.5  # of the range of values: a low-pass of more is not of values alone

Header = TypeVar("Header", jpeg.JpegHeader, jpeg2000.Jpeg2000Header)


@dataclass(frozen=True)
class Stored:
    """The pixel data of an image.

    ``words`` is uint8 or uint16 [rows, columns]; ``values``, int32 [256 or 65536], is the stored
    value of each possible word; ``low`` and ``high`` are the least and greatest that the header's
    number of bits allows. ``bits`` is that number. ``halved`` says how often the image was halved
    in both directions while it was decoded.
    """

    words: Words
    values: NDArray[np.int32]
    low: int
    high: int
    bits: int
    halved: int = 0


def stored_range(dataset: FileDataset) -> tuple[int, int, int]:
    """Bits Stored (0028,0101), and the least and greatest value that they allow."""
    bits = int(dataset.BitsStored)
    if int(dataset.get("PixelRepresentation") or 0) == 1:
        return bits, -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return bits, 0, (1 << bits) - 1


def stored_values(dataset: FileDataset, rows: int, columns: int, halvings: int = 0) -> Stored:
    """Decode the pixel data, halved ``halvings`` times by the 5/3 low-pass if the frame holds
    it, else as it is.

    Raises ``Refusal`` (``unsupported_transfer_syntax``, ``broken_image``), and whatever pydicom
    and the codecs raise for what is broken.
    """
    syntax = _transfer_syntax(dataset)
    bits, low, high = stored_range(dataset)
    signed = low < 0
    dtype = np.dtype(f"u{int(dataset.BitsAllocated) // 8}")
    coded_bits = bits
    shift = _unused_low_bits(dataset)
    if syntax in uid.UncompressedTransferSyntaxes:
        words = _uncompressed(_in_order(dataset, syntax), dtype, rows, columns)
    elif syntax == _ENCAPSULATED_UNCOMPRESSED:
        words = _uncompressed(_frame(dataset), dtype, rows, columns)
    elif syntax == uid.RLELossless:
        words = _run_lengths(_frame(dataset), dtype, rows, columns)
    elif syntax in _JPEG | _JPEG_LS | _JPEG_2000:
        frame = _frame(dataset)
        if halvings and syntax in _JPEG_2000 - _LOSSY:
            smaller = _low_passed(frame, rows, columns, halvings, dataset)
            if smaller:
                _refuse_if_flat(smaller.words, rows * columns, frame, syntax)
                return smaller
        words, precision = _decompressed(frame, syntax, rows, columns)
        if words.dtype.itemsize > dtype.itemsize:
            raise Refusal("broken_image", "The pixel data is deeper than the header says.")
        _refuse_if_flat(words, words.size, frame, syntax)
        # a lossy codec overshoots; a lossless one may carry more than the stored value
        coded_bits = precision if syntax in _LOSSY else min(precision, bits)
        shift = 0
    else:
        raise Refusal("unsupported_transfer_syntax", "The file's transfer syntax is not read.")
    values = _meaning(words.dtype.itemsize * 8, coded_bits, shift, signed).clip(low, high)
    return Stored(words, values, low, high, bits)


def _transfer_syntax(dataset: FileDataset) -> str:
    """The transfer syntax as the meta information gives it, else as pydicom found it to be."""
    named = dataset.file_meta.get("TransferSyntaxUID")
    if named:
        return str(named)
    implicit, little = dataset.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _unused_low_bits(dataset: FileDataset) -> int:
    """Until 1993 the high bit was free to be anywhere (PS3.5 8.1.1)."""
    bits, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    high_bit = dataset.get("HighBit")
    shift = 0 if high_bit is None else int(high_bit) - (bits - 1)
    if not 0 <= shift <= allocated - bits:
        raise Refusal("broken_image", "The high bit does not fit the other bits.")
    return shift


def _meaning(word_bits: int, bits: int, shift: int, signed: bool) -> NDArray[np.int32]:
    """The number that each possible word holds in ``bits`` of its bits (PS3.5 8.1.1)."""
    values = (np.arange(1 << word_bits, dtype=np.int32) >> shift) & ((1 << bits) - 1)
    if signed:
        sign = 1 << (bits - 1)
        values = (values ^ sign) - sign
    return values


# without compression


def _in_order(dataset: FileDataset, syntax: str) -> bytes:
    """The pixel data in little endian order.

    Eight-bit pixels in 16-bit words are swapped too (PS3.5 8.1.2, A.3).
    """
    element = dataset["PixelData"]
    data: bytes = element.value
    wide = int(dataset.BitsAllocated) == 16 or element.VR == "OW"
    if syntax != uid.ExplicitVRBigEndian or not wide:
        return data
    return np.frombuffer(data, np.uint16, len(data) // 2).byteswap().tobytes()


def _uncompressed(data: bytes, dtype: np.dtype[Any], rows: int, columns: int) -> Words:
    if len(data) < rows * columns * dtype.itemsize:
        raise Refusal("broken_image", "The pixel data is shorter than the image it describes.")
    words = np.frombuffer(data, dtype.newbyteorder("<"), rows * columns)
    return words.reshape(rows, columns)


# compressed


def _frame(dataset: FileDataset) -> bytes:
    """All fragments but the offset table: of a single frame it says nothing (PS3.5 A.4)."""
    fragments = generate_fragments(dataset.PixelData)
    next(fragments)
    return b"".join(fragments)


def _run_lengths(frame: bytes, dtype: np.dtype[Any], rows: int, columns: int) -> Words:
    """PS3.5 G: a segment for each byte of a word, the most significant first."""
    header = np.frombuffer(frame, "<u4", _RLE_HEADER_BYTES // 4)
    count, starts = int(header[0]), header[1:].tolist()
    if count != dtype.itemsize or starts[0] != _RLE_HEADER_BYTES:
        raise Refusal("broken_image", "The RLE header does not fit the image it describes.")
    pixels, planes = rows * columns, []
    for place in range(count):
        end = starts[place + 1] if place + 1 < count else len(frame)
        plane = np.empty(pixels + _RLE_PADDING, np.uint8)
        found = imagecodecs.packbits_decode(frame[starts[place] : end], out=plane.data)
        if len(found) < pixels:
            raise Refusal("broken_image", "The pixel data is shorter than the image it describes.")
        planes.append(plane[:pixels].reshape(rows, columns))
    return cv2.merge(planes[::-1]).view(dtype.newbyteorder("<")).reshape(rows, columns)


def _decompressed(frame: bytes, syntax: str, rows: int, columns: int) -> tuple[Words, int]:
    """The words of a JPEG, JPEG-LS or JPEG 2000 frame, and their precision in bits."""
    if syntax in _JPEG_2000:
        stream, sizes = _whole_stream(frame, rows, columns)
        # openjph is faster for HTJ2K, but its wrapper answers with half pictures
        pixels = imagecodecs.jpeg2k_decode(stream, numthreads=_THREADS)
        return _as_words(pixels, rows, columns), sizes.precision
    header = _of_size(jpeg.jpeg_header(frame), rows, columns)
    end = jpeg.end_of_image(frame, header)
    if end is None:  # charls searches for it for seconds
        raise Refusal("broken_image", "The JPEG code stream has no end where one can be.")
    if syntax in _JPEG_LS and header.kind == jpeg.JPEG_LS:
        return _as_words(imagecodecs.jpegls_decode(frame), rows, columns), header.precision
    if syntax in _JPEG and header.kind in (*jpeg.SEQUENTIAL, jpeg.LOSSLESS):
        pixels = imagecodecs.jpeg8_decode(frame)
        if not jpeg.is_whole(frame, header.precision, end, pixels, imagecodecs.jpeg8_decode):
            raise Refusal("broken_image", "The JPEG code stream ends too soon.")
        return _as_words(pixels, rows, columns), header.precision
    raise Refusal("broken_image", "The pixel data is not what its transfer syntax says.")


def _whole_stream(frame: bytes, rows: int, columns: int) -> tuple[bytes, jpeg2000.Jpeg2000Header]:
    stream = jpeg2000.code_stream(frame)
    sizes = _of_size(jpeg2000.jpeg2000_header(stream), rows, columns)
    if not jpeg2000.is_whole(stream, sizes):
        raise Refusal("broken_image", "The JPEG 2000 code stream is not whole.")
    return stream, sizes


def _low_passed(
    frame: bytes, rows: int, columns: int, halvings: int, dataset: FileDataset
) -> Stored | None:
    """A lossless JPEG 2000 frame decoded at a lower resolution; None where its resolutions are
    not those of the 5/3 low-pass of the stored values. Words count from the least value."""
    bits, low, high = stored_range(dataset)
    stream, sizes = _whole_stream(frame, rows, columns)
    fits = sizes.precision <= int(dataset.BitsAllocated) and sizes.signed == (low < 0)
    more = sizes.precision > bits  # which do not belong to the value, if they are not zero
    fits = fits and not (more and _has_overlay_bits(dataset))
    if not fits or jpeg2000.low_pass_levels(stream, sizes) < halvings or not openjpeg.AVAILABLE:
        return None
    found = openjpeg.decode(stream, halvings)
    if found.shape != (-(-rows >> halvings), -(-columns >> halvings)):
        raise Refusal("broken_image", "The pixel data does not have the size the header gives.")
    found = found - low
    if more and found.max() > _MOST_OVERSHOOT * (high - low):
        return None
    found = found.clip(0, high - low)
    words: NDArray[Any] = found.astype(np.uint8 if bits <= 8 else np.uint16)
    values = np.arange(1 << 8 * words.dtype.itemsize, dtype=np.int32) + low
    return Stored(words, values.clip(low, high), low, high, bits, halvings)


def _has_overlay_bits(dataset: FileDataset) -> bool:
    """Whether the pixel data holds overlays beside the values, as it could until 2004."""
    positions = (dataset.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))
    return any(position is not None and position.value != 0 for position in positions)


def _of_size(header: Header | None, rows: int, columns: int) -> Header:
    """The header of a grey frame of just this size: before a few bytes become gigabytes."""
    if header is None or (header.rows, header.columns) != (rows, columns):
        raise Refusal("broken_image", "The pixel data does not have the size the header gives.")
    if header.components != 1:
        raise Refusal("broken_image", "The pixel data is not grey, as the header says.")
    return header


def _as_words(pixels: NDArray[Any], rows: int, columns: int) -> Words:
    if pixels.shape != (rows, columns) or pixels.dtype.itemsize > 2:
        raise Refusal("broken_image", "The pixel data does not have the size the header gives.")
    return pixels.view(f"u{pixels.dtype.itemsize}")


def _refuse_if_flat(words: Words, pixels: int, frame: bytes, syntax: str) -> None:
    """A codec that fails in silence gives zeros, or another constant."""
    lossless_jpeg = syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1)
    a_byte = _FLAT_PIXELS_A_BYTE_OF_LOSSLESS_JPEG if lossless_jpeg else _FLAT_PIXELS_A_BYTE
    if len(frame) < _HEADER_BYTES + pixels / a_byte:
        return
    if (words[0] == words[0, 0]).all() and (words == words[0, 0]).all():
        raise Refusal("broken_image", "The codec made nothing of the compressed pixels.")
