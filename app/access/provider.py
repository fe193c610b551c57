"""The OpenID provider to log in with, as the settings name it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from app.access.faults import AccessError
from app.access.hosts import is_safe_way
from app.settings import Settings


@dataclass(frozen=True)
class Provider:
    """``ca_file`` holds the certificates to trust, the public ones if it is None."""

    issuer: str
    client_id: str
    client_secret: str
    ca_file: Path | None


@dataclass(frozen=True)
class TokenIssuer:
    """Whose access tokens are taken if they are meant for ``audience``."""

    issuer: str
    audience: str
    ca_file: Path | None


def token_issuer_of(settings: Settings) -> TokenIssuer | None:
    """None if no tokens are taken. Raises ``AccessError``."""
    if settings.oidc_audience is None:
        return None
    if settings.oidc_issuer is None:
        raise AccessError("MAMMOSEQ_OIDC_AUDIENCE needs MAMMOSEQ_OIDC_ISSUER, too")
    _check(settings.oidc_issuer, settings.oidc_ca_file)
    return TokenIssuer(settings.oidc_issuer, settings.oidc_audience, settings.oidc_ca_file)


def provider_of(settings: Settings) -> Provider | None:
    """None if there is none. Raises ``AccessError``."""
    secret = settings.oidc_client_secret
    needed = {
        "MAMMOSEQ_OIDC_ISSUER": settings.oidc_issuer,
        "MAMMOSEQ_OIDC_CLIENT_ID": settings.oidc_client_id,
        "MAMMOSEQ_OIDC_CLIENT_SECRET": secret.get_secret_value() if secret is not None else None,
    }
    missing = [name for name, value in needed.items() if value is None]
    only_tokens = settings.oidc_audience is not None and settings.oidc_issuer is not None
    if len(missing) == len(needed) - only_tokens:
        return None
    if missing:
        raise AccessError(f"the OpenID provider needs {' and '.join(missing)}, too")
    issuer, client_id, client_secret = map(str, needed.values())
    _check(issuer, settings.oidc_ca_file)
    return Provider(issuer, client_id, client_secret, settings.oidc_ca_file)


def _check(issuer: str, ca_file: Path | None) -> None:
    if not is_safe_way(issuer):
        raise AccessError("MAMMOSEQ_OIDC_ISSUER: who is there is only asked over https")
    try:
        ssl.create_default_context(cafile=ca_file)
    except OSError:
        raise AccessError("MAMMOSEQ_OIDC_CA_FILE holds no certificates that can be read") from None
