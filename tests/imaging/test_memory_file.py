"""Bytes in memory as a file: the same as ``BytesIO``, without a copy."""

from __future__ import annotations

import io
import tracemalloc

import pytest

from app.imaging.decode import decode
from app.imaging.memory_file import memory_file
from tests.pictures import DECODABLE, breast, png, real_dicom

DATA = bytes(range(256)) * 300


def test_it_reads_and_seeks_as_any_file_does() -> None:
    file, expected = memory_file(bytearray(DATA)), io.BytesIO(DATA)
    for offset, whence, size in [
        (10, 0, 5),
        (-3, 2, 10),
        (0, 0, 70_000),
        (5, 1, 1),
        (90_000, 0, 4),
    ]:
        assert file.seek(offset, whence) == expected.seek(offset, whence)
        assert file.read(size) == expected.read(size)
        assert file.tell() == expected.tell()


def test_large_bytearray_is_not_copied() -> None:
    data = bytearray(30_000_000)
    tracemalloc.start()
    memory_file(data).read(100)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000


@pytest.mark.parametrize("name", DECODABLE)
def test_bytearray_is_decoded_as_bytes_are(name: str) -> None:
    for data in (real_dicom(name), png(breast())):
        pixels, facts = decode(data, 10**8)
        same, as_well = decode(bytearray(data), 10**8)
        assert (same == pixels).all()
        assert as_well == facts
