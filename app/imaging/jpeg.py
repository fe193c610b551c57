"""JPEG code streams: what their header says, and whether they are whole.

libjpeg makes up what it does not find: where the entropy-coded data ends too soon, the rest of the
picture becomes middle grey, with a warning that nobody hears. Here such a stream is told from a
whole one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOSSLESS = 0xC3  # SOF3, process 14
SEQUENTIAL = frozenset({0xC0, 0xC1})  # SOF0 and SOF1: processes 1, 2 and 4
JPEG_LS = 0xF7  # SOF55

_MAX_SCANS = 64  # a progressive JPEG has about ten, and each costs a pass over the picture
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# SOF markers of JPEG (all but DHT, JPG and DAC, which share their range) and of JPEG-LS
_START_OF_FRAME = {*range(0xC0, 0xD0), JPEG_LS} - {0xC4, 0xC8, 0xCC}
# What ends entropy-coded data: no stuffed byte (JPEG) or bit (JPEG-LS), no restart marker, no fill
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_MARKER_OF_JPEG_LS = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
_STRANGE = bytes(167 * i % 255 for i in range(4096))  # entropy-coded data that no encoder wrote


@dataclass(frozen=True)
class JpegHeader:
    """The frame header (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2) of a JPEG or JPEG-LS code stream.

    ``kind`` is the second byte of its SOF marker, ``precision`` in bits, ``scan`` the place of the
    first SOS marker.
    """

    kind: int
    precision: int
    rows: int
    columns: int
    components: int
    scan: int


def jpeg_header(stream: bytes) -> JpegHeader | None:
    """Read the segments before the first scan; None if they are not those of a JPEG."""
    frame: tuple[int, int, int, int, int] | None = None
    place = 2  # after SOI
    while place + 10 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == 0xFF:  # fill bytes (ISO 10918-1 B.1.1.2)
            place += 1
            continue
        if marker == _START_OF_SCAN:
            return JpegHeader(*frame, scan=place) if frame else None
        if marker in _START_OF_FRAME:
            frame = (
                marker,
                stream[place + 4],
                int.from_bytes(stream[place + 5 : place + 7]),
                int.from_bytes(stream[place + 7 : place + 9]),
                stream[place + 9],
            )
        place = _after_segment(stream, place)
    return None


def is_whole(
    stream: bytes,
    precision: int,
    end: int,
    pixels: NDArray[Any],
    decode: Callable[[bytes], NDArray[Any] | None],
) -> bool:
    """Whether the ``pixels`` that ``decode`` made of ``stream`` are all the encoder's; the image's
    EOI marker is at ``end``.

    Where the last pixel is the grey that libjpeg fills in, the stream is decoded again with other
    bytes before its end: only one that ended too soon looks at them. Not noticed are lossless
    streams that end within their very last row, and progressive ones.
    """
    if (pixels[-1, -1] != 1 << (precision - 1)).any():
        return True
    again = decode(stream[:end] + _STRANGE + stream[end:])
    return again is not None and np.array_equal(pixels, again)


def end_of_image(stream: bytes, header: JpegHeader) -> int | None:
    """The place of the EOI marker of the image.

    None if it is missing, comes sooner than so many pixels can be coded, or after more scans than
    an honest image has.
    """
    marker = _MARKER_OF_JPEG_LS if header.kind == JPEG_LS else _MARKER
    scan = header.scan
    for _ in range(_MAX_SCANS):
        found = marker.search(stream, _after_segment(stream, scan))
        if not found:
            return None
        place = found.start()
        while stream[place + 1] not in (_START_OF_SCAN, _END_OF_IMAGE):  # tables between scans
            place = _after_segment(stream, place)
            if place + 2 > len(stream) or stream[place] != 0xFF:
                return None
        if stream[place + 1] == _END_OF_IMAGE:
            return place if place >= header.scan + _least_bytes(header) else None
        scan = place
    return None


def _least_bytes(header: JpegHeader) -> int:
    """No Huffman code is shorter than a bit: a lossless pixel has one, and a block of 8 x 8 two."""
    if header.components != 1 or header.kind not in SEQUENTIAL | {LOSSLESS}:
        return 0
    if header.kind == LOSSLESS:
        return header.rows * header.columns // 8
    return -(-header.rows // 8) * -(-header.columns // 8) // 4


def _after_segment(stream: bytes, place: int) -> int:
    return place + 2 + int.from_bytes(stream[place + 2 : place + 4])
