"""Lists of ``name:hash``, from a setting and from a file that is read again when it changes."""

from __future__ import annotations

import logging
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from app.access.faults import AccessError

_LOG = logging.getLogger("mammoseq")
# A file that has changed is read once more after this: it may change again before its time does
_TICK_NANOSECONDS = 100_000_000
LONGEST_NAME = 64  # characters
_NAME = re.compile(rf"[^\s:#\x00-\x1f\x7f][^\s:\x00-\x1f\x7f]{{0,{LONGEST_NAME - 1}}}")


@dataclass(frozen=True)
class Entry:
    """A name and the hash of what proves it."""

    name: str
    hash: str


class Listed:
    """The entries of a setting and of a file, those of the file last.

    At start a broken entry raises ``AccessError``. Later it is logged and left out, and the others
    hold: so that one who was removed stays out. A file that is not there (yet) has no entries;
    while one that was there cannot be read, what it held last holds.
    """

    def __init__(
        self,
        name: str,
        setting: SecretStr | None,
        file: Path | None,
        is_hash: Callable[[str], bool],
    ) -> None:
        self._name = f"MAMMOSEQ_{name}"
        self._is_hash = is_hash
        self._file = file
        words = setting.get_secret_value().split() if setting is not None else []
        self._fixed, broken = _parsed(words, is_hash)
        if broken:
            raise AccessError(f"{self._name}: entry {broken[0]} is not a name and its hash")
        self.entries: Sequence[Entry] = self._fixed
        self._version: tuple[int, ...] = ()
        self._found: tuple[list[Entry], list[int]] = [], []  # in the file
        if file is not None:
            self._read_first(file)

    def changed(self) -> bool:
        """Look whether the file has changed, and read it if so."""
        if self._file is None:
            return False
        try:
            version = _version(self._file)
            if version == self._version:
                return False
            found, broken = _parsed(_lines(self._file), self._is_hash)
        except (OSError, UnicodeDecodeError):
            if self._version:  # told once
                _LOG.error("%s_FILE cannot be read: what it held last holds", self._name)
            self._version = ()
            return False
        self._version = version
        if (found, broken) == self._found:
            return False
        if broken:
            _LOG.error("%s_FILE: left out line %s", self._name, ", ".join(map(str, broken)))
        self._found = found, broken
        self.entries = [*self._fixed, *found]
        return True

    def _read_first(self, file: Path) -> None:
        try:
            self._version = _version(file)
            found, broken = _parsed(_lines(file), self._is_hash)
        except FileNotFoundError:
            _LOG.warning("%s_FILE is not there: it is read once it is", self._name)
            return
        except (OSError, UnicodeDecodeError):
            raise AccessError(f"{self._name}_FILE cannot be read") from None
        if broken:
            raise AccessError(f"{self._name}_FILE: line {broken[0]} is not a name and its hash")
        self._found = found, broken
        self.entries = [*self._fixed, *found]


def plain_name(name: str) -> str:
    """A name in the form in which names are compared."""
    return unicodedata.normalize("NFKC", name)


def is_name(name: str) -> bool:
    return _NAME.fullmatch(plain_name(name)) is not None


def _version(file: Path) -> tuple[int, ...]:
    status = file.stat()
    settled = time.time_ns() - status.st_ctime_ns > _TICK_NANOSECONDS
    # The time of change, which, unlike that of the content, cannot be set
    return status.st_ctime_ns, status.st_size, status.st_ino, settled


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text("utf-8-sig").splitlines()]


def _parsed(lines: Sequence[str], is_hash: Callable[[str], bool]) -> tuple[list[Entry], list[int]]:
    """The entries, and the numbers, from 1, of the lines that are none. Empty lines and those
    with a # at their start are passed over."""
    found, broken = [], []
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        name, _, hashed = line.partition(":")
        if is_name(name) and is_hash(hashed):
            found.append(Entry(plain_name(name), hashed))
        else:
            broken.append(number)
    return found, broken
