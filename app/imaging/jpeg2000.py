"""JPEG 2000 and HTJ2K code streams: what is checked before the decoder believes them.

A kilobyte can ask a decoder for gigabytes (tiny precincts), and tiles that are missing are decoded
as zeros. Sections are those of ISO 15444-1.
"""

from __future__ import annotations

from dataclasses import dataclass

_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
_COD, _COC = 0x52, 0x53
_START_OF_TILE_PART, _START_OF_DATA = b"\xff\x90", b"\xff\x93"
_END_OF_STREAM = b"\xff\xd9"
# Code-blocks and precincts that a decoder keeps books on: 16 x 16 pixels a block are fine, and
# nobody writes less
_PIXELS_PER_BLOCK = 100
_ANY_BLOCKS = 4096
_REVERSIBLE = 1  # the 5/3 wavelet (table A.20)
_MAX_TILES = 65535  # A.4.2
_WHOLE = 15  # exponent of a precinct that is as large as can be (A.6.1)


@dataclass(frozen=True)
class Jpeg2000Header:
    """Image, tile and component sizes of the SIZ marker segment (A.5.1); ``precision`` in bits;
    ``at_origin`` where image and tiles begin at the origin of the reference grid."""

    precision: int
    rows: int
    columns: int
    tile_rows: int
    tile_columns: int
    tiles: int
    components: int
    signed: bool
    at_origin: bool


def code_stream(frame: bytes) -> bytes:
    """The code stream of a frame; some writers wrap it into the boxes of a JP2 file."""
    return frame[max(0, frame.find(_START, 0, 4096)) :]


def jpeg2000_header(stream: bytes) -> Jpeg2000Header | None:
    """Read the image and tile sizes; None if they are not those of a JPEG 2000 image."""
    if len(stream) < 43 or not stream.startswith(_START):
        return None
    right, bottom, left, top, tile_columns, tile_rows, tile_left, tile_top = (
        int.from_bytes(stream[i : i + 4]) for i in range(8, 40, 4)
    )
    if not (tile_columns > 0 and tile_rows > 0 and tile_left <= left < right):
        return None
    if not tile_top <= top < bottom:
        return None
    across = -(-(right - tile_left) // tile_columns)  # B.3
    down = -(-(bottom - tile_top) // tile_rows)
    return Jpeg2000Header(
        precision=(stream[42] & 0x7F) + 1,
        rows=bottom - top,
        columns=right - left,
        tile_rows=min(tile_rows, bottom - top),
        tile_columns=min(tile_columns, right - left),
        tiles=across * down,
        components=int.from_bytes(stream[40:42]),
        signed=bool(stream[42] & 0x80),
        at_origin=not any((left, top, tile_left, tile_top)),
    )


def is_whole(stream: bytes, header: Jpeg2000Header) -> bool:
    """Whether every tile is there with all the parts and bytes that it announces (A.4.2).

    False too for a stream that asks for more code-blocks than any honest one. A stream that was
    cut between two packets, with its lengths made to fit, cannot be told from a coarser one.
    """
    if header.tiles > _MAX_TILES:
        return False
    segments, place = _segments(stream, 2)
    parts: dict[int, int] = {}  # how many of each tile were found
    announced: dict[int, int] = {}  # and how many there shall be, where that is said
    while stream[place : place + 2] == _START_OF_TILE_PART:
        if place + 12 > len(stream):
            return False
        tile = int.from_bytes(stream[place + 4 : place + 6])
        length = int.from_bytes(stream[place + 6 : place + 10])
        parts[tile] = parts.get(tile, 0) + 1
        if stream[place + 11]:
            announced[tile] = stream[place + 11]
        of_tile, data = _segments(stream, place + 12)
        segments += of_tile
        if stream[data : data + 2] != _START_OF_DATA:
            return False
        place = place + length if length else stream.rfind(_END_OF_STREAM)
        if not data + 2 <= place <= len(stream):
            return False
    return (
        stream[place : place + 2] == _END_OF_STREAM
        and parts.keys() == set(range(header.tiles))
        and announced.items() <= parts.items()
        and all(_is_modest(marker, segment, header) for marker, segment in segments)
    )


def low_pass_levels(stream: bytes, header: Jpeg2000Header) -> int:
    """How many times a stream that ``is_whole`` holds its image halved by the reversible 5/3
    low-pass (annex F): 0 for other wavelets, and for tiles, each of which has a low-pass of its
    own."""
    if header.tiles > 1 or not header.at_origin:
        return 0
    segments, place = _segments(stream, 2)
    while stream[place : place + 2] == _START_OF_TILE_PART:
        length = int.from_bytes(stream[place + 6 : place + 10])
        segments += _segments(stream, place + 12)[0]
        place = place + length if length else len(stream)
    codings = [
        segment[5:] if marker == _COD else segment[2:]
        for marker, segment in segments
        if marker in (_COD, _COC)
    ]
    if not codings or any(coding[4] != _REVERSIBLE for coding in codings):
        return 0
    return min(coding[0] for coding in codings)


def _segments(stream: bytes, place: int) -> tuple[list[tuple[int, bytes]], int]:
    """Markers and contents of a header's marker segments, and where the header ends."""
    segments = []
    while place + 4 <= len(stream) and stream[place] == 0xFF:
        if stream[place : place + 2] in (_START_OF_TILE_PART, _START_OF_DATA):
            break
        end = place + 2 + int.from_bytes(stream[place + 2 : place + 4])
        segments.append((stream[place + 1], stream[place + 4 : end]))
        place = end
    return segments, place


def _is_modest(marker: int, segment: bytes, header: Jpeg2000Header) -> bool:
    """Whether a marker segment, if it sets a coding style (A.6.1, A.6.2), asks for few blocks."""
    if marker == _COD:
        style, coding = segment[0], segment[5:]
    elif marker == _COC:  # one byte for the component, as there are fewer than 257
        style, coding = segment[1], segment[2:]
    else:
        return True
    levels, block_columns, block_rows = coding[0], (coding[1] & 15) + 2, (coding[2] & 15) + 2
    blocks = 0
    for resolution in range(levels + 1):
        size = coding[5 + resolution] if style & 1 else (_WHOLE << 4) | _WHOLE
        wide, high = size & 15, size >> 4
        shrunk = levels - resolution
        columns = -(-header.tile_columns // (1 << shrunk))
        rows = -(-header.tile_rows // (1 << shrunk))
        blocks += _count(columns, wide) * _count(rows, high)  # precincts (B.6)
        halved = 1 if resolution else 0  # sub-bands are half as wide as their resolution (B.7)
        blocks += (
            _count(columns, min(block_columns + halved, wide))
            * _count(rows, min(block_rows + halved, high))
            * (3 if resolution else 1)
        )
    pixels = header.rows * header.columns
    return header.tiles * blocks <= _ANY_BLOCKS + pixels // _PIXELS_PER_BLOCK


def _count(side: int, exponent: int) -> int:
    return -(-side // (1 << exponent))
