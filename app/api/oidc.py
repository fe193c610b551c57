"""Logging in with an OpenID provider: authorization code flow with PKCE, by Authlib. Imported only
where there is one."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import ssl
from collections.abc import Mapping
from typing import Annotated, Any

import httpx
from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from joserfc.errors import JoseError
from pydantic import AfterValidator, BaseModel

from app.access.hosts import is_safe_way
from app.access.provider import Provider
from app.problems import Refusal

_LOG = logging.getLogger("mammoseq")
_SECONDS = 10.0  # for an answer of the provider, all of it
_LARGEST = 1 << 20  # bytes of one; descriptions and keys have some kB
_LEEWAY_SECONDS = 60  # between the clocks of both sides
# The provider signs with a key that only it has: never `none`, nor a secret that both know
_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
_LONGEST_NAME = 128
_CODE = re.compile(r"[a-z_]{1,64}")
# What comes of answers that are not as they should be: Authlib takes much of them for granted
_WRONG = (httpx.HTTPError, httpx.InvalidURL, ValueError, RuntimeError, LookupError, TypeError,
          AttributeError)  # fmt: skip


def _checked(address: str) -> str:
    if not is_safe_way(address):
        raise ValueError("neither https nor on this machine")
    return address


_Address = Annotated[str, AfterValidator(_checked)]


class _Description(BaseModel):
    """What a provider says of itself (OpenID Connect Discovery 1.0, 3)."""

    issuer: str
    authorization_endpoint: _Address
    token_endpoint: _Address
    jwks_uri: _Address
    userinfo_endpoint: _Address | None = None
    id_token_signing_alg_values_supported: list[str] = []


class _Bounded(httpx.AsyncBaseTransport):
    """Answers of ``_LARGEST`` bytes at most, within ``_SECONDS``. On connections of their own, for
    Authlib closes what it was given after each."""

    def __init__(self, trusted: ssl.SSLContext) -> None:
        self._trusted = trusted

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            async with (
                asyncio.timeout(_SECONDS),
                httpx.AsyncHTTPTransport(verify=self._trusted, trust_env=False) as transport,
            ):
                return await self._whole(await transport.handle_async_request(request), request)
        except TimeoutError:
            raise httpx.ReadTimeout("", request=request) from None

    async def _whole(self, response: httpx.Response, request: httpx.Request) -> httpx.Response:
        if "content-encoding" in response.headers:  # not asked for; unpacked it could be any size
            raise httpx.DecodingError("", request=request)
        body = b""
        async for part in response.aiter_raw():
            body += part
            if len(body) > _LARGEST:
                raise httpx.ReadError("", request=request)
        headers = {"Content-Type": response.headers.get("content-type", "")}
        return httpx.Response(response.status_code, headers=headers, content=body, request=request)


class Login:
    """Both halves of a login. Nothing goes out before the first.

    Raises ``Refusal``: ``provider_unreachable``, and ``login_failed`` from the second half.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._client: Any = None

    async def begun(self, redirect_uri: str) -> tuple[str, dict[str, str]]:
        """The address to send the browser to, and what it must bring back with it."""
        try:
            client = await self._ready()
            begun = await client.create_authorization_url(redirect_uri)
        except _WRONG as error:
            raise _unreachable(error) from None
        kept = {key: begun[key] for key in ("state", "nonce", "code_verifier")}
        return str(begun["url"]), kept | {"redirect_uri": redirect_uri}

    async def ended(self, query: Mapping[str, str], kept: Mapping[str, str] | None) -> str:
        """The name of who has logged in. ``query`` is what the provider sent the browser back
        with, ``kept`` what ``begun`` gave it; None if that is gone or was changed."""
        state, code = query.get("state", ""), query.get("code")
        if kept is None or not hmac.compare_digest(state.encode(), kept["state"].encode()):
            raise _failed("state")
        if code is None:
            raise _failed(query.get("error", "no_code"))
        try:
            client = await self._ready()
            token = await client.fetch_access_token(
                redirect_uri=kept["redirect_uri"], code=code, code_verifier=kept["code_verifier"]
            )
            if "id_token" not in token:
                raise _failed("no_id_token")
            claims = await client.parse_id_token(
                token,
                nonce=kept["nonce"],
                claims_options={
                    "iss": {"essential": True, "value": self._provider.issuer},
                    "aud": {"essential": True, "value": self._provider.client_id},
                },
                leeway=_LEEWAY_SECONDS,
            )
            if "preferred_username" not in claims:  # most providers tell it only when asked
                told = await client.userinfo(token=token)
                claims = {**told, **claims} if told["sub"] == claims["sub"] else claims
        except OAuthError as error:
            raise _failed(str(error.error)) from None
        except JoseError as error:
            raise _failed(str(error.error)) from None
        except _WRONG as error:
            raise _unreachable(error) from None
        return _name(claims)

    async def _ready(self) -> Any:
        """Authlib's client with the provider's description, which is fetched once."""
        client = self._client or self._made()
        metadata = await client.load_server_metadata()
        described = _Description.model_validate(metadata)
        if described.issuer != self._provider.issuer:
            raise ValueError
        metadata["id_token_signing_alg_values_supported"] = [
            name for name in described.id_token_signing_alg_values_supported if name in _ALGORITHMS
        ]
        self._client = client  # only now: what is wrong is asked for again
        return client

    def _made(self) -> Any:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs what it asks for
        provider = self._provider
        return OAuth().register(
            "provider",
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            server_metadata_url=f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": "openid profile email",
                "code_challenge_method": "S256",
                "headers": {"Accept-Encoding": "identity"},
                "transport": _Bounded(ssl.create_default_context(cafile=provider.ca_file)),
                "trust_env": False,  # settings have one home
            },
        )


def _name(claims: Mapping[str, Any]) -> str:
    verified = claims.get("email") if claims.get("email_verified") else None
    for name in (claims.get("preferred_username"), verified, claims["sub"]):
        plain = "".join(filter(str.isprintable, str(name or ""))).strip()
        if plain:
            return plain[:_LONGEST_NAME]
    raise _failed("no_name")


def _unreachable(error: Exception) -> Refusal:
    _LOG.warning("the OpenID provider does not do its part: %s", type(error).__name__)
    return Refusal("provider_unreachable", "The provider does not answer as it should.")


def _failed(code: str) -> Refusal:
    """``code`` is logged if it looks like one: it may come from anybody."""
    _LOG.warning("a login by OpenID failed: %s", code if _CODE.fullmatch(code) else "unknown")
    return Refusal("login_failed", "The provider's answer is not that of a login begun here.")
