"""Bytes in memory as a file that reads them where they are."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast


def memory_file(data: bytes) -> BinaryIO:
    """A binary file over ``data``; unlike ``BytesIO`` it does not copy a bytearray."""
    if isinstance(data, bytes):
        return io.BytesIO(data)
    return cast(BinaryIO, io.BufferedReader(_Memory(data)))


class _Memory(io.RawIOBase):
    name = ""  # pydicom asks a buffered file for it

    def __init__(self, data: Any) -> None:
        self._data = memoryview(data)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._data[self._place : self._place + len(buffer)]
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: len(self._data)}[whence]
        self._place = max(0, start + offset)
        return self._place
