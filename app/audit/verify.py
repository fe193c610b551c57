"""Whether the lines of a log follow each other as they were written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from app.audit.chain import FORMAT, hash_of


class BrokenChainError(Exception):
    """Its message says which line of a log is not as it was written, and why."""


@dataclass(frozen=True)
class Verified:
    """A log that holds: how many lines it has, what its first follows, and its last hash. The
    hashes are None where there is none."""

    lines: int
    follows: str | None
    last: str | None
    met: bool


def verified(lines: Iterable[bytes], *, look_for: str | None = None) -> Verified:
    """Follow a log from its first line to its last; ``met`` says whether ``look_for`` is the hash
    of one of its lines. Raises ``BrokenChainError``.

    A line that was changed is found by the one after it; so of the last line only its hash tells.
    """
    follows = last = None
    number, met = 0, False
    for number, line in enumerate(lines, start=1):
        previous = _previous(line, number)
        if number == 1:
            follows = previous
        elif previous != last:
            raise BrokenChainError(
                f"line {number} does not follow line {number - 1}: one of them was changed, or "
                "lines between them were taken out or put in"
            )
        last = hash_of(line)
        met = met or last == look_for
    return Verified(number, follows, last, met)


def _previous(line: bytes, number: int) -> str | None:
    """The hash of the line before, as a line states it."""
    if not line.endswith(b"\n"):
        raise BrokenChainError(f"line {number} is cut short")
    try:
        record: Any = json.loads(line)
        if record["audit"] == FORMAT:
            previous: str | None = record["previous"]
            return previous
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise BrokenChainError(f"line {number} is no record")
