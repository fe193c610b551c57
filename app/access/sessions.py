"""Sessions: kept by the browser, signed and dated by the service, which keeps nothing."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer

from app.access.who import Who

_LONGEST = 2048  # characters of a cookie that is looked at
_AHEAD_SECONDS = 60  # that the clock of another replica may be, or this one was before it was set


class Signed:
    """Data that a browser keeps for ``seconds`` and cannot change, for one ``purpose``."""

    def __init__(
        self, secret: str, purpose: str, seconds: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.seconds = seconds
        self._clock = clock
        self._serializer = URLSafeTimedSerializer(
            secret,
            f"mammoseq {purpose}",
            signer=_Signer,
            signer_kwargs={
                "key_derivation": "hmac", "digest_method": hashlib.sha256, "clock": clock,
            },
        )  # fmt: skip

    def written(self, data: Any) -> str:
        return str(self._serializer.dumps(data))

    def read(self, text: str) -> Any:
        """What was written; None if it was changed, is for another purpose, or too old."""
        if len(text) > _LONGEST:
            return None
        try:
            data, written = self._serializer.loads(text, return_timestamp=True)
        except (BadData, UnicodeEncodeError):
            return None
        age = int(self._clock()) - written.timestamp()
        return data if -_AHEAD_SECONDS <= age <= self.seconds else None


class _Signer(TimestampSigner):
    def __init__(self, *arguments: Any, clock: Callable[[], float], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._clock = clock

    def get_timestamp(self) -> int:
        return int(self._clock())


@dataclass(frozen=True)
class Session:
    """``csrf`` is what the page must send along; ``bound_to`` stands for the password of then."""

    who: Who
    csrf: str
    bound_to: str


class Sessions:
    """``secret`` signs, also the tokens against requests of other sites."""

    def __init__(self, secret: str, hours: float, clock: Callable[[], float] = time.time) -> None:
        self.seconds = int(hours * 3600)
        self._secret = secret.encode()
        self._signed = Signed(secret, "session", self.seconds, clock)

    def begun(self, who: Who, proof: str = "") -> str:
        """A new session, bound to ``proof``, such as the hash of the password."""
        identifier = secrets.token_urlsafe(16)
        return self._signed.written([identifier, who.kind, who.name, self.bound_to(proof)])

    def read(self, text: str) -> Session | None:
        data = self._signed.read(text)
        if data is None:
            return None
        identifier, kind, name, bound_to = data
        return Session(Who(name, kind), self._keyed("csrf", identifier), bound_to)

    def bound_to(self, proof: str) -> str:
        """What a session keeps of ``proof``."""
        return self._keyed("proof", proof)[:16]

    def _keyed(self, purpose: str, text: str) -> str:
        return hmac.digest(self._secret, f"{purpose} {text}".encode(), "sha256").hex()
