"""Who may come in is asked here, before anything of a body is read."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access.entrance import Entrance
from app.access.hosts import host_of, is_loopback
from app.access.sessions import Session
from app.access.who import Who
from app.api.cookies import SESSION, cookie
from app.api.errors import problem_response
from app.problems import Refusal
from app.settings import Settings

if TYPE_CHECKING:
    from app.api.tokens import Tokens

_PUBLIC = frozenset({"/", "/session", "/metrics", "/openapi.json"})
_PUBLIC_BELOW = ("/web/", "/session/", "/healthz/", "/v2/health/")
_READS = frozenset({"GET", "HEAD"})
_LONGEST_KEY = 256
_DOTS = 2  # of a JWT (RFC 7515 7.1); a key has none


class Guard:
    """ASGI middleware. Who it is stands as ``who`` in the state of the scope: a ``Who``, or None
    where nobody is asked."""

    def __init__(
        self, app: ASGIApp, entrance: Entrance, settings: Settings, tokens: Tokens | None = None
    ) -> None:
        self._app = app
        self._entrance = entrance
        self._public_url = settings.public_url
        self._only_from_here = not entrance.required and is_loopback(settings.host)
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["state"]["who"] = None
            request = Request(scope)
            try:
                if self._only_from_here:
                    self._check_from_here(request)
                if not is_public(scope["path"]):
                    scope["state"]["who"] = await self._counted(request)
            except Refusal as refusal:
                await problem_response(request, refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check_from_here(self, request: Request) -> None:
        """Whoever sits at the machine may do everything, but not every page that their browser
        shows: not under a name of its own that leads here (DNS rebinding), nor from its own site.
        """
        stated = request.headers.get("host")
        if stated is not None:  # every browser states it
            host = host_of(stated)
            public = urlsplit(self._public_url or "").hostname
            if not (host and (is_loopback(host) or host == public)):
                raise Refusal("wrong_host", "The Host header names no address of this machine.")
        if request.method not in _READS:
            check_origin(request, self._public_url)

    async def _counted(self, request: Request) -> Who | None:
        """Who it is, whose request was counted; if it is nobody, as one of the address."""
        address = request.client.host if request.client is not None else ""
        try:
            who = await self._let_in(request) if self._entrance.required else None
        except Refusal:
            self._entrance.count(None, address)
            raise
        self._entrance.count(who, address)
        return who

    async def _let_in(self, request: Request) -> Who:
        authorization = request.headers.get("authorization")
        if authorization is not None:
            who = await self._holder(authorization)
            check_scope(request, who)
            return who
        session = session_of(request, self._entrance)
        if session is None:
            raise Refusal("login_required", "There is no session, or it is over.")
        if request.method not in _READS:
            check_origin(request, self._public_url)
            check_token(request, session)
        return session.who

    async def _holder(self, authorization: str) -> Who:
        scheme, _, key = authorization.partition(" ")
        holder = None
        if scheme.lower() == "bearer" and self._tokens is not None and key.count(".") == _DOTS:
            return await self._tokens.holder_of(key.strip())
        if scheme.lower() == "bearer" and len(key) <= _LONGEST_KEY:
            holder = self._entrance.holder_of(key.strip())
        if holder is None:
            raise Refusal("login_required", "The key in Authorization is not known.")
        return holder


def check_scope(request: Request, who: Who) -> None:
    """Raises ``Refusal`` (``forbidden``) where a key or token is not good for what is asked."""
    needed = "read" if request.method in _READS else "predict"
    if needed not in who.scopes:
        raise Refusal("forbidden", f"What is asked needs the scope {needed}.")


def is_public(path: str) -> bool:
    """Whether anybody may ask for it: the page, the way in, and what machines watch."""
    return path in _PUBLIC or path.startswith(_PUBLIC_BELOW)


def session_of(request: Request, entrance: Entrance) -> Session | None:
    """The session that the browser of a request has, if it holds."""
    text = cookie(request, SESSION)
    return entrance.session_of(text) if text else None


def check_origin(request: Request, public_url: str | None) -> None:
    """Raises ``Refusal`` (``csrf_failed``) where a browser says that another site asks."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        ours = site in ("same-origin", "none")
    elif origin is not None:
        hosts = {request.headers.get("host", "").lower()}
        if public_url is not None:
            hosts.add(urlsplit(public_url).netloc.lower())
        ours = origin.lower().partition("://")[2] in hosts
    else:
        ours = True  # no browser of today
    if not ours:
        raise Refusal("csrf_failed", "The request comes from another site.")


def check_token(request: Request, session: Session) -> None:
    """Raises ``Refusal`` (``csrf_failed``) where the session's token is not sent along."""
    sent = request.headers.get("x-csrf-token", "")
    if not hmac.compare_digest(sent.encode(), session.csrf.encode()):
        raise Refusal("csrf_failed", "X-CSRF-Token is not that of the session.")
