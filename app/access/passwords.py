"""Passwords and their hashes: Argon2id with parameters that OWASP recommends."""

from __future__ import annotations

import re
import secrets
import unicodedata
from functools import lru_cache

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

LONGEST = 1024  # bytes
SHORTEST = 12  # characters, of a new one
# 19 MiB and two passes: as strong as the library's own choice, and 1000 logins at once do not take
# a machine's memory
# As it writes them, with any costs: 8 bytes of salt and 16 of hash at least
_HASH = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,2}),p=(\d{1,2})\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"
)
_MOST_MEMORY = 1 << 20  # KiB
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def hashed(password: str) -> str:
    return _HASHER.hash(_plain(password))


def is_hash(text: str) -> bool:
    """Whether it is an Argon2id hash as ``hashed`` writes it, of costs that can be paid."""
    found = _HASH.fullmatch(text)
    if found is None:
        return False
    memory, passes, lanes = map(int, found.groups())
    return passes >= 1 and lanes >= 1 and 8 * lanes <= memory <= _MOST_MEMORY  # RFC 9106 3.1


def matches(hash_of_it: str, password: str) -> bool:
    """Takes tens of milliseconds, and the interpreter lock is not held meanwhile."""
    try:
        return _HASHER.verify(hash_of_it, _plain(password))
    except (VerificationError, InvalidHashError):
        return False


@lru_cache(maxsize=8)
def unmatched(like: str | None) -> str:
    """A hash that no password has, and that costs as much to compare as ``like``."""
    hasher = _HASHER
    if like is not None:
        hasher = PasswordHasher.from_parameters(extract_parameters(like))
    return hasher.hash(secrets.token_hex())


def _plain(password: str) -> str:
    """As keyboards write one character in several ways (NIST SP 800-63B, 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
