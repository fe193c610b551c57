"""The cookies of a session and of a login under way, as secure as the way of the request allows."""

from __future__ import annotations

from typing import Literal

from fastapi import Request, Response

from app.access.hosts import is_loopback

SESSION = "mammoseq"
PROVIDER = "mammoseq-oidc"


def cookie(request: Request, name: str) -> str:
    """The value of a cookie of ours; empty if there is none."""
    return request.cookies.get(_full(request, name), "")


def set_cookie(
    request: Request,
    response: Response,
    name: str,
    value: str,
    seconds: int,
    same_site: Literal["strict", "lax"],
) -> None:
    response.set_cookie(
        _full(request, name),
        value,
        max_age=seconds,
        path="/",
        secure=not _on_this_machine(request),
        httponly=True,
        samesite=same_site,
    )


def drop_cookie(request: Request, response: Response, name: str) -> None:
    set_cookie(request, response, name, "", 0, "strict")


def is_private(request: Request) -> bool:
    """Whether nobody between browser and service, or the proxy before it, reads along. A browser
    sends Sec-Fetch-Site only to addresses that it takes for such."""
    return (
        request.url.scheme == "https"
        or is_loopback(request.url.hostname or "")
        or "sec-fetch-site" in request.headers
    )


def _full(request: Request, name: str) -> str:
    """With the prefix by which a browser takes the cookie only as this host sets it, over https."""
    return name if _on_this_machine(request) else f"__Host-{name}"


def _on_this_machine(request: Request) -> bool:
    return request.url.scheme == "http" and is_loopback(request.url.hostname or "")
