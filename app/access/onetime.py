"""A password for the first look: random, printed at start, good for one login."""

from __future__ import annotations

import secrets
from pathlib import Path

from app.access.passwords import hashed

USER = "first"
# Without what looks alike
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS, _LETTERS = 5, 5  # 123 bits


class OneTimePassword:
    """Its hash is in ``file``, which all processes of the service share; with it the password
    goes."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def made(self) -> str:
        """Make one; it is told only here."""
        password = "-".join(
            "".join(secrets.choice(_ALPHABET) for _ in range(_LETTERS)) for _ in range(_GROUPS)
        )
        self._file.write_text(hashed(password))
        return password

    def hash(self) -> str | None:
        """None if it was used, or is not made yet."""
        try:
            return self._file.read_text() or None
        except OSError:
            return None

    def use_up(self) -> bool:
        """Whether it was still there: of several processes, for one only."""
        try:
            self._file.unlink()
        except OSError:
            return False
        return True
