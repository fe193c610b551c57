"""Who has come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# How: with a password of the users, with the one that is good once, by the OpenID provider, a key
Kind = Literal["user", "once", "oidc", "key"]


@dataclass(frozen=True)
class Who:
    """``name`` is unique only among those of a ``kind``."""

    name: str
    kind: Kind
