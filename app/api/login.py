"""The way in and out: ``/session``, and ``/session/oidc`` where there is an OpenID provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field, SecretStr, ValidationError

from app import metrics
from app.access.entrance import Entrance
from app.access.lists import plain_name
from app.access.sessions import Session
from app.access.who import Who
from app.api.audit import Attempt
from app.api.cookies import PROVIDER, SESSION, cookie, drop_cookie, is_private, set_cookie
from app.api.errors import documented
from app.api.guard import check_origin, check_token, session_of
from app.api.uploads import first_fault
from app.problems import Refusal
from app.settings import Settings

if TYPE_CHECKING:
    from app.api.oidc import Login

router = APIRouter()

_LARGEST = 8192  # bytes of a body
_CALLBACK = "/session/oidc/callback"
_DONE = "/?login=done"
_Again = Annotated[
    bool,
    Query(description=f"whether the page waits in another window: this one ends at `{_DONE}`"),
]
_LEADS_ON: dict[int | str, dict[str, Any]] = {
    303: {"description": "Leads on; after a fault to the page, as `/?login=login_failed` or "
          "`/?login=provider_unreachable`"}
}  # fmt: skip


class Credentials(BaseModel):
    user: str
    password: SecretStr


class SessionBody(BaseModel):
    """Who the caller is, and how one can log in."""

    access: Literal["open", "login"] = Field(description="`open`: anybody may do everything")
    user: str | None = Field(description="who is logged in")
    csrf: str | None = Field(description="to send as X-CSRF-Token with what is not GET")
    password: bool = Field(description="whether one can log in with a password")
    oidc: bool = Field(description="whether one can log in at GET /session/oidc")
    https: bool = Field(
        description="whether a login can work: browsers keep its cookie over https only, or on "
        "the same machine"
    )


@router.get("/session")
async def current(request: Request) -> SessionBody:
    """Who the caller is, and how one can log in."""
    return _answered(request, session_of(request, request.app.state.entrance))


@router.post(
    "/session",
    responses=documented(
        "login_failed", "csrf_failed", "body_too_large", "invalid_json", "invalid_request",
        "login_locked", "overloaded", "audit_unavailable",
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Credentials"}}
            },
        }
    },
)  # fmt: skip
async def log_in(request: Request, response: Response) -> SessionBody:
    """Log in with a password: the answer sets the cookie of a session."""
    entrance: Entrance = request.app.state.entrance
    settings: Settings = request.app.state.settings
    check_origin(request, settings.public_url)
    credentials = await _credentials(request)
    if not entrance.required:
        return _answered(request, None)
    user = plain_name(credentials.user)
    known = entrance.users.hash_of(user) is not None
    request.state.login = Attempt(Who(user, "user") if known else None)
    text = await entrance.log_in(
        credentials.user,
        credentials.password.get_secret_value(),
        request.client.host if request.client is not None else "",
    )
    _keep_session(request, response, text)
    session = entrance.sessions.read(text)
    request.state.login = Attempt(session.who if session is not None else None)
    return _answered(request, session)


@router.delete("/session", responses=documented("csrf_failed"))
async def log_out(request: Request, response: Response) -> SessionBody:
    """Have the browser forget the session."""
    settings: Settings = request.app.state.settings
    session = session_of(request, request.app.state.entrance)
    if session is not None:
        check_origin(request, settings.public_url)
        check_token(request, session)
    drop_cookie(request, response, SESSION)
    return _answered(request, None)


@router.get(
    "/session/oidc",
    status_code=303,
    response_class=RedirectResponse,
    responses=_LEADS_ON | documented("not_found", "invalid_request"),
)
async def to_provider(request: Request, again: _Again = False) -> Response:
    """Log in with the OpenID provider: leads there."""
    settings: Settings = request.app.state.settings
    entrance: Entrance = request.app.state.entrance
    login = _login(request)
    base = settings.public_url or str(request.base_url)
    try:
        address, kept = await login.begun(base.rstrip("/") + _CALLBACK)
    except Refusal as refusal:
        return _back_with(refusal)
    response = RedirectResponse(address, 303)
    # Lax: it must come along when the provider sends the browser back
    state = entrance.provider_state
    written = state.written(kept | {"to": _DONE if again else "/"})
    set_cookie(request, response, PROVIDER, written, state.seconds, "lax")
    return response


@router.get(
    _CALLBACK,
    status_code=303,
    response_class=RedirectResponse,
    responses=_LEADS_ON | documented("not_found", "audit_unavailable"),
)
async def from_provider(request: Request) -> Response:
    """Where the OpenID provider sends the browser back to: sets the session, leads to the page."""
    entrance: Entrance = request.app.state.entrance
    login = _login(request)
    kept = entrance.provider_state.read(cookie(request, PROVIDER))
    try:
        who = Who(await login.ended(request.query_params, kept), "oidc")
    except Refusal as refusal:
        return _back_with(refusal)
    request.state.login = Attempt(who)
    response = RedirectResponse(kept.get("to", "/"), 303)
    drop_cookie(request, response, PROVIDER)
    _keep_session(request, response, entrance.sessions.begun(who))
    return response


def _back_with(refusal: Refusal) -> Response:
    """To the page: whoever comes here is a person with a browser, not a client that reads JSON."""
    metrics.PROBLEMS.labels(refusal.code).inc()
    return RedirectResponse(f"/?login={refusal.code}", 303)


def _login(request: Request) -> Login:
    entrance: Entrance = request.app.state.entrance
    if entrance.provider is None or not entrance.required:
        raise Refusal("not_found", "There is no OpenID provider to log in with.")
    login: Login = request.app.state.oidc
    return login


def _answered(request: Request, session: Session | None) -> SessionBody:
    entrance: Entrance = request.app.state.entrance
    if not entrance.required:
        session = None
    return SessionBody(
        access="login" if entrance.required else "open",
        user=session.who.name if session is not None else None,
        csrf=session.csrf if session is not None else None,
        password=entrance.takes_passwords,
        oidc=entrance.required and entrance.provider is not None,
        https=is_private(request),
    )


def _keep_session(request: Request, response: Response, text: str) -> None:
    seconds = request.app.state.entrance.sessions.seconds
    # Strict: from another site nobody comes with it; the page asks who is there when it is loaded
    set_cookie(request, response, SESSION, text, seconds, "strict")


async def _credentials(request: Request) -> Credentials:
    """The body, which a form of another site cannot send. Raises ``Refusal``."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refusal("invalid_json", "Content-Type must be application/json.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST:
            raise Refusal("body_too_large", f"A login has at most {_LARGEST} bytes.")
    try:
        return Credentials.model_validate_json(body)
    except ValidationError as error:
        raise Refusal("invalid_json", first_fault(error)) from None
