"""Passwords and their hashes: Argon2id with parameters that OWASP recommends."""

from __future__ import annotations

import secrets
import unicodedata
from functools import lru_cache

from argon2 import PasswordHasher, Type, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

LONGEST = 1024  # bytes
SHORTEST = 12  # characters, of a new one
# 19 MiB and two passes: as strong as the library's own choice, and 1000 logins at once do not take
# a machine's memory
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def hashed(password: str) -> str:
    return _HASHER.hash(_plain(password))


def is_hash(text: str) -> bool:
    """Whether it is an Argon2id hash as ``hashed`` writes it."""
    try:
        return extract_parameters(text).type is Type.ID and not any(map(str.isspace, text))
    except InvalidHashError:
        return False


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
