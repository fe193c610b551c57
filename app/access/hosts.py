"""Which hosts are this machine, and which addresses are reached in private."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]*)?")


def is_loopback(host: str) -> bool:
    """Whether a name or address, without a port, is of this machine only."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 6.3
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_of(authority: str) -> str:
    """The name or address of a ``Host`` header, without its port; empty if it is none."""
    found = _AUTHORITY.fullmatch(authority)
    return found[1].lower() if found is not None else ""


def is_safe_way(address: str) -> bool:
    """Whether nobody on the way to ``https://...`` reads along, or to ``http://...`` of this
    machine."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    host = parts.hostname or ""
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    )
