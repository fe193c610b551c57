"""Who has come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

# How: with a password of the users, with the one that is good once, by the OpenID provider, a key,
# a token of the OpenID provider
Kind = Literal["user", "once", "oidc", "key", "token"]
# What one may do: have images scored or shown, ask for anything else
Scope = Literal["predict", "read"]
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))


@dataclass(frozen=True)
class Who:
    """``name`` is unique only among those of a ``kind``."""

    name: str
    kind: Kind
    scopes: frozenset[Scope] = SCOPES


def scopes_of(words: object) -> frozenset[Scope]:
    """The scopes among ``words``."""
    return frozenset(scope for scope in SCOPES if isinstance(words, list) and scope in words)
