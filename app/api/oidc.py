"""Logging in with an OpenID provider: authorization code flow with PKCE, by Authlib. Imported only
where there is one."""

from __future__ import annotations

import hmac
import logging
import re
import ssl
from collections.abc import Mapping
from typing import Any

import httpx
from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from joserfc.errors import JoseError

from app.access.provider import Provider
from app.problems import Refusal

_LOG = logging.getLogger("mammoseq")
_SECONDS = 10.0
_LEEWAY_SECONDS = 60  # between the clocks of both sides
# The provider signs with a key that only it has: never `none`, nor a secret that both know
_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
_LONGEST_NAME = 128
_CODE = re.compile(r"[a-z_]{1,64}")


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
        except (httpx.HTTPError, ValueError, RuntimeError, KeyError) as error:
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
        except (httpx.HTTPError, ValueError, RuntimeError, KeyError) as error:
            raise _unreachable(error) from None
        return _name(claims)

    async def _ready(self) -> Any:
        """Authlib's client with the provider's description, which is fetched once."""
        if self._client is None:
            self._client = self._made()
        metadata = await self._client.load_server_metadata()
        if metadata["issuer"] != self._provider.issuer:
            self._client = None
            raise ValueError
        offered = metadata.get("id_token_signing_alg_values_supported", ())
        metadata["id_token_signing_alg_values_supported"] = [
            name for name in offered if name in _ALGORITHMS
        ]
        return self._client

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
                "timeout": _SECONDS,
                "verify": ssl.create_default_context(cafile=provider.ca_file),
                "trust_env": False,  # settings have one home
            },
        )


def _name(claims: Mapping[str, Any]) -> str:
    verified = claims.get("email") if claims.get("email_verified") else None
    name = str(claims.get("preferred_username") or verified or claims["sub"])
    return "".join(filter(str.isprintable, name))[:_LONGEST_NAME]


def _unreachable(error: Exception) -> Refusal:
    _LOG.warning("the OpenID provider does not do its part: %s", type(error).__name__)
    return Refusal("provider_unreachable", "The provider does not answer as it should.")


def _failed(code: str) -> Refusal:
    """``code`` is logged if it looks like one: it may come from anybody."""
    _LOG.warning("a login by OpenID failed: %s", code if _CODE.fullmatch(code) else "unknown")
    return Refusal("login_failed", "The provider's answer is not that of a login begun here.")
