"""Users and their passwords."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from app.access.lists import Listed, plain_name
from app.access.passwords import is_hash


class Users:
    """Those of ``MAMMOSEQ_USERS`` and ``MAMMOSEQ_USERS_FILE``; the last entry of a name counts."""

    def __init__(self, setting: SecretStr | None, file: Path | None) -> None:
        """Raises ``AccessError``."""
        self._listed = Listed("USERS", setting, file, is_hash)
        self._hashes: dict[str, str] = {}
        self._take()

    def __len__(self) -> int:
        self._look()
        return len(self._hashes)

    def hash_of(self, name: str) -> str | None:
        """The hash of a user's password; None if there is no such user."""
        self._look()
        return self._hashes.get(plain_name(name))

    def any_hash(self) -> str | None:
        """The hash of one user, whoever it is."""
        return next(iter(self._hashes.values()), None)

    def _look(self) -> None:
        if self._listed.changed():
            self._take()

    def _take(self) -> None:
        self._hashes = {entry.name: entry.hash for entry in self._listed.entries}
