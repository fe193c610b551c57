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


def provider_of(settings: Settings) -> Provider | None:
    """None if there is none. Raises ``AccessError``."""
    secret = settings.oidc_client_secret
    needed = {
        "MAMMOSEQ_OIDC_ISSUER": settings.oidc_issuer,
        "MAMMOSEQ_OIDC_CLIENT_ID": settings.oidc_client_id,
        "MAMMOSEQ_OIDC_CLIENT_SECRET": secret.get_secret_value() if secret is not None else None,
    }
    missing = [name for name, value in needed.items() if value is None]
    if len(missing) == len(needed):
        return None
    if missing:
        raise AccessError(f"the OpenID provider needs {' and '.join(missing)}, too")
    issuer, client_id, client_secret = map(str, needed.values())
    if not is_safe_way(issuer):
        raise AccessError("MAMMOSEQ_OIDC_ISSUER: who is there is only asked over https")
    try:
        ssl.create_default_context(cafile=settings.oidc_ca_file)
    except OSError:
        raise AccessError("MAMMOSEQ_OIDC_CA_FILE holds no certificates that can be read") from None
    return Provider(issuer, client_id, client_secret, settings.oidc_ca_file)
