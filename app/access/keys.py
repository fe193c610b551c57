"""Keys for machines. Of a random key a plain SHA-256 tells nothing, so no slow hash is needed."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path

from pydantic import SecretStr

from app.access.lists import Listed
from app.access.who import SCOPES, Scope, Who, scopes_of

_BYTES = 32
_PREFIX = "mammoseq_"  # by which a leaked one is found
_HASH = re.compile(r"([0-9a-f]{64})(?::([a-z]+(?:,[a-z]+)*))?")


class Keys:
    """Those of ``MAMMOSEQ_API_KEYS`` and ``MAMMOSEQ_API_KEYS_FILE``; a name may have several. An
    entry may say what a key is good for: ``name:hash:predict``."""

    def __init__(self, setting: SecretStr | None, file: Path | None) -> None:
        """Raises ``AccessError``."""
        self._listed = Listed("API_KEYS", setting, file, _is_entry)
        self._holders: dict[str, Who] = {}
        self._take()

    def __len__(self) -> int:
        self._look()
        return len(self._holders)

    def holder_of(self, key: str) -> Who | None:
        """Whose key it is, and what it is good for; None if it is nobody's."""
        self._look()
        # Looked up by the hash: what the time tells is about that, not about a key
        return self._holders.get(hash_of(key))

    def _look(self) -> None:
        if self._listed.changed():
            self._take()

    def _take(self) -> None:
        self._holders = {
            hashed: Who(entry.name, "key", scopes)
            for entry in self._listed.entries
            for hashed, scopes in [_parts(entry.hash)]
        }


def new_key() -> str:
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _is_entry(text: str) -> bool:
    """Whether it is a hash, and scopes that there are if any."""
    match = _HASH.fullmatch(text)
    return match is not None and set((match[2] or "read").split(",")) <= SCOPES


def _parts(text: str) -> tuple[str, frozenset[Scope]]:
    hashed, _, words = text.partition(":")
    return hashed, scopes_of(words.split(",")) if words else SCOPES
