"""Access tokens of the OpenID provider, by which machines come in: JWTs (RFC 9068), whose signature
is checked with the provider's public keys. Imported only where there is such a provider."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Callable
from typing import Any

import httpx
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import Key, KeySet, import_key
from joserfc.jwt import JWTClaimsRegistry, decode

from app.access.provider import TokenIssuer
from app.access.who import Who, scopes_of
from app.problems import Refusal

_LOG = logging.getLogger("mammoseq")
_ALGORITHMS = ("RS256", "ES256")
_LEEWAY_SECONDS = 60  # between the clocks of both sides
_FETCH_SECONDS = 10.0  # for all that the provider tells
_LARGEST = 1 << 20  # bytes of an answer of it
_FRESH_SECONDS = 3600.0  # after which keys are fetched anew, while those there are go on holding
_KEPT_SECONDS = 24 * 3600.0  # for which they hold if the provider is down
_PAUSE_SECONDS = 10.0  # between two fetches, whatever names of keys are asked for
_LONGEST = 8192  # characters
_LONGEST_NAME = 128
# What comes of answers that are not as they should be
_WRONG = (httpx.HTTPError, httpx.InvalidURL, JoseError, TimeoutError, RecursionError, ValueError,
          LookupError, TypeError, AttributeError)  # fmt: skip


class Tokens:
    """The keys of ``issuer``, and who comes with a token that is signed by one. ``clock`` tells
    seconds."""

    def __init__(self, issuer: TokenIssuer, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched = self._tried = -_KEPT_SECONDS
        self._fetching = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._claims = JWTClaimsRegistry(
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer.issuer},
            aud={"essential": True, "value": issuer.audience},
            exp={"essential": True},
            sub={"essential": True},
        )

    async def holder_of(self, token: str) -> Who:
        """Who comes with a token, with the scopes that it names. Raises ``Refusal``:
        ``login_required``, ``provider_unreachable``."""
        if len(token) > _LONGEST:
            raise _not_good()
        keys = await self._current()
        try:
            try:
                claims = decode(token, keys, algorithms=_ALGORITHMS).claims
            except InvalidKeyIdError:  # perhaps a new one
                claims = decode(token, await self._renewed(keys), algorithms=_ALGORITHMS).claims
            self._claims.validate(claims)
        except (JoseError, ValueError) as error:
            _LOG.info("a token was refused: %s", type(error).__name__)
            raise _not_good() from None
        return _named(claims)

    async def _current(self) -> KeySet:
        """The provider's keys, as they were fetched not too long ago."""
        age = self._clock() - self._fetched
        if self._keys is None or age > _KEPT_SECONDS:
            return await self._renewed(None)
        if age > _FRESH_SECONDS and self._may_fetch() and self._renewal is None:
            self._renewal = asyncio.create_task(self._renew())
        return self._keys

    async def _renewed(self, known: KeySet | None) -> KeySet:
        """Keys that are newer than ``known`` if there may be any. Raises ``Refusal``
        (``provider_unreachable``) where there are none."""
        async with self._fetching:
            if self._keys is known or known is None:
                await self._fetch()
        if self._keys is None or self._clock() - self._fetched > _KEPT_SECONDS:
            raise Refusal("provider_unreachable", "The provider does not tell its keys.")
        return self._keys

    async def _renew(self) -> None:
        try:
            async with self._fetching:
                await self._fetch()
        finally:
            self._renewal = None

    async def _fetch(self) -> None:
        """Fetch the keys unless that was tried just now; those there were stay if it fails."""
        if not self._may_fetch():
            return
        self._tried = self._clock()
        try:
            self._keys = await _fetched(self._issuer)
        except _WRONG as error:
            _LOG.warning("the OpenID provider does not tell its keys: %s", type(error).__name__)
        else:
            self._fetched = self._clock()

    def _may_fetch(self) -> bool:
        return self._clock() - self._tried >= _PAUSE_SECONDS


async def _fetched(issuer: TokenIssuer) -> KeySet:
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs what it asks for
    async with (
        asyncio.timeout(_FETCH_SECONDS),
        httpx.AsyncClient(
            headers={"Accept-Encoding": "identity"},
            verify=ssl.create_default_context(cafile=issuer.ca_file),
            trust_env=False,  # settings have one home
        ) as client,
    ):
        address = f"{issuer.issuer.rstrip('/')}/.well-known/openid-configuration"
        metadata = await _json(client, address)
        if metadata["issuer"] != issuer.issuer:
            raise ValueError
        jwks: str = metadata["jwks_uri"]
        if httpx.URL(jwks).scheme != httpx.URL(issuer.issuer).scheme:
            raise ValueError
        told = await _json(client, jwks)
    keys = [key for one in told["keys"] for key in _known(one)]
    if not keys:
        raise ValueError
    return KeySet(keys)


def _known(told: Any) -> list[Key]:
    """The key, unless it is of a kind or on a curve that only others know (RFC 7517 5)."""
    if told.get("kty") not in ("RSA", "EC"):
        return []
    try:
        return [import_key(told)]
    except (JoseError, ValueError, LookupError, TypeError):
        return []


async def _json(client: httpx.AsyncClient, address: str) -> Any:
    body = b""
    async with client.stream("GET", address) as answer:
        answer.raise_for_status()
        async for part in answer.aiter_raw():  # not unpacked: it could be any size
            body += part
            if len(body) > _LARGEST:
                raise ValueError
    return json.loads(body)


def _named(claims: dict[str, Any]) -> Who:
    """Scopes are in ``scope`` (RFC 9068 2.2.3), or ``scp`` as some providers write it."""
    told = claims.get("scope", claims.get("scp"))
    words = told.split() if isinstance(told, str) else told
    name = "".join(filter(str.isprintable, claims["sub"]))[:_LONGEST_NAME]
    return Who(name, "token", scopes_of(words))


def _not_good() -> Refusal:
    return Refusal("login_required", "The token in Authorization is not good for this service.")
