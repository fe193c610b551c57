"""Keys for machines. Of a random key a plain SHA-256 tells nothing, so no slow hash is needed."""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path

from pydantic import SecretStr

from app.access.lists import Listed

_BYTES = 32
_PREFIX = "mammoseq_"  # by which a leaked one is found
_HASH = re.compile(r"[0-9a-f]{64}")


class Keys:
    """Those of ``MAMMOSEQ_API_KEYS`` and ``MAMMOSEQ_API_KEYS_FILE``; a name may have several."""

    def __init__(self, setting: SecretStr | None, file: Path | None) -> None:
        """Raises ``AccessError``."""
        self._listed = Listed("API_KEYS", setting, file, _is_hash)
        self._names: dict[str, str] = {}
        self._take()

    def __len__(self) -> int:
        self._look()
        return len(self._names)

    def name_of(self, key: str) -> str | None:
        """Whose key it is; None if it is nobody's."""
        self._look()
        # Looked up by the hash: what the time tells is about that, not about a key
        return self._names.get(hash_of(key))

    def _look(self) -> None:
        if self._listed.changed():
            self._take()

    def _take(self) -> None:
        self._names = {entry.hash: entry.name for entry in self._listed.entries}


def new_key() -> str:
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _is_hash(text: str) -> bool:
    return _HASH.fullmatch(text) is not None
