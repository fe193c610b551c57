"""Lines of JSON, each of which holds the SHA-256 of the line before it.

So that several processes write one chain, whoever writes holds the lock of a small file beside the
log, ``NAME.last``, which keeps the hash of the last line. With it a new file, where a log was moved
away or emptied, begins with the last hash of the old one, and where lines were taken from the end
of a log the chain breaks.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FORMAT = 1
_BEGIN = b'{"audit":'  # of each line
_HASH_LENGTH = 64  # characters
_MODE = 0o640
_TAIL = 1 << 16  # bytes read at a time from the end of a log
_STDOUT = 1

Record = Mapping[str, Any]


class Chain:
    """A log to append to. One thread of a process uses it at a time.

    ``file`` is None for standard output, whose lines are counted as one chain until the service
    ends; ``last`` is the file beside it.
    """

    def __init__(self, file: Path | None, last: Path) -> None:
        """Raises ``OSError``."""
        self._file = file
        self._last = os.open(last, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)

    def append(self, records: Sequence[Record]) -> str:
        """Write a line for each record, all or none; they are on the disk when this returns.
        Returns the hash of the last one. Raises ``OSError``."""
        with self._locked():
            if self._file is None:
                lines = _linked(records, self._kept()[1])
                _write(_STDOUT, b"".join(lines))
                return self._keep(0, lines)
            log = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
            try:
                return self._append_to(log, records)
            finally:
                os.close(log)

    def _append_to(self, log: int, records: Sequence[Record]) -> str:
        size = os.fstat(log).st_size
        kept_size, kept = self._kept()
        if not size:
            records = [{"event": "begin"}, *records]
        elif size != kept_size:  # the last writer did not come to its end, or it is another file
            is_shorter = size < kept_size
            size, end = _end_of(log, size)
            # Not over lines that were taken away: what follows them must show that they are missing
            kept = kept if is_shorter else end
        lines = _linked(records, kept)
        try:
            _write(log, b"".join(lines))
            os.fdatasync(log)
        except OSError:
            with suppress(OSError):  # else the next to write does it
                os.ftruncate(log, size)
            raise
        return self._keep(size + sum(map(len, lines)), lines)

    def _kept(self) -> tuple[int, str | None]:
        """Size of the log after its last line, and that line's hash."""
        size, _, kept = os.pread(self._last, 1024, 0).decode("ascii", "replace").partition(" ")
        whole = size.isdigit() and len(kept) == _HASH_LENGTH
        return (int(size), kept) if whole else (0, None)

    def _keep(self, size: int, lines: Sequence[bytes]) -> str:
        kept = hash_of(lines[-1])
        text = f"{size} {kept}".encode()
        os.pwrite(self._last, text, 0)
        os.ftruncate(self._last, len(text))
        return kept

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._last, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._last, fcntl.LOCK_UN)


def is_of_others(file: Path) -> bool:
    """Whether a file is no audit log: of it, too, what is no whole line would be cut off."""
    if not file.is_file():
        return False
    with file.open("rb") as log:
        return not _BEGIN.startswith(log.read(len(_BEGIN)))


def hash_of(line: bytes) -> str:
    """SHA-256 of a line without its end, hexadecimal."""
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def _linked(records: Sequence[Record], previous: str | None) -> list[bytes]:
    lines: list[bytes] = []
    for record in records:
        if lines:
            previous = hash_of(lines[-1])
        linked = {"audit": FORMAT, **record, "previous": previous}
        lines.append(json.dumps(linked, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return lines


def _write(log: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(log, left) :]


def _end_of(log: int, size: int) -> tuple[int, str | None]:
    """Where the last whole line ends, and its hash. What a crash has left behind it, which nobody
    was answered for, is cut off."""
    start, tail = size, b""
    while start and tail.count(b"\n") < 2:
        begin = max(0, start - _TAIL)
        tail = os.pread(log, start - begin, begin) + tail
        start = begin
    whole = tail[: tail.rfind(b"\n") + 1]
    end = start + len(whole)
    if end < size:
        os.ftruncate(log, end)
    return end, hash_of(whole[:-1].rpartition(b"\n")[2]) if whole else None
