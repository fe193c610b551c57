"""What requests did -> the audit log: a record for each prediction and login, written before its
answer goes out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.who import Who
from app.api.errors import problem_response
from app.audit.log import AuditError, Log
from app.bundle import Bundle
from app.inference.pipeline import Encoded
from app.problems import Refusal
from app.render.fhir_audit import Requester
from app.render.result import BreastResult, StudyResult
from app.tracing.spans import span

# Others are asked for by anybody: who fills the log could fill the disk
_RECORDED_LOGINS = (None, "login_failed")


@dataclass
class Noted:
    """What is known of a prediction so far. ``images`` are the SHA-256 of the files that were
    looked at, in the order of the request, if ``hashes`` says that somebody wants them."""

    request_id: str
    who: Who | None
    address: str | None
    bundle: Bundle
    hashes: bool
    images: Sequence[str] = ()
    result: StudyResult | None = None

    @property
    def requester(self) -> Requester:
        return Requester(self.who.name if self.who is not None else None, self.address)

    def look_at(
        self,
        files: Sequence[bytes | memoryview],
        keys: Mapping[int, str | None] | None = None,
    ) -> None:
        """Note the files, of some of which the hash is known. Computes: call it on a worker."""
        if self.hashes:
            known = keys or {}
            self.images = [
                known.get(index) or hashlib.sha256(data).hexdigest()
                for index, data in enumerate(files)
            ]


@dataclass(frozen=True)
class Attempt:
    """An attempt to log in. ``who`` is None for a name that nobody has: it may be a password."""

    who: Who | None


def noted_of(request: Request) -> Noted:
    """Begin to note what a prediction does."""
    state = request.app.state
    noted = Noted(
        request.state.request_id,
        request.state.who,
        request.client.host if request.client is not None else None,
        request.state.pipeline.bundle,
        hashes=state.audit is not None,
    )
    request.state.noted = noted
    return noted


def start_record(bundle: Bundle, version: str) -> dict[str, Any]:
    """What is written when the service starts."""
    return {"event": "start", "version": version, "model": _model(bundle)}


def swap_record(changes: Sequence[tuple[str, Bundle, Bundle]]) -> dict[str, Any]:
    """What is written when models take the place of others while the service runs: each with its
    role, the old one first."""
    return {
        "event": "swap",
        "changes": [
            {"role": role, "model": _model(new), "replaced": _model(old)}
            for role, old, new in changes
        ],
    }


def keys_of(seen: Sequence[Encoded | Refusal]) -> dict[int, str | None]:
    """The SHA-256 of the files that were read, by their index."""
    return {
        index: image.sent.content_key
        for index, image in enumerate(seen)
        if isinstance(image, Encoded)
    }


class Audit:
    """ASGI middleware. Where a record cannot be written, the answer is withheld."""

    def __init__(self, app: ASGIApp, log: Log | None) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._log is None or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        log, withheld = self._log, False

        async def send_recorded(message: Message) -> None:
            nonlocal withheld
            if message["type"] == "http.response.start":
                record = _record(scope, message["status"])
                try:
                    if record is not None:
                        with span("audit"):
                            await log.write(record)
                except AuditError:
                    withheld = True
                    refusal = Refusal("audit_unavailable", "What was done could not be recorded.")
                    await problem_response(Request(scope), refusal)(scope, receive, send)
            if not withheld:
                await send(message)

        try:
            await self._app(scope, receive, send_recorded)
        except ClientDisconnect:
            raise
        except Exception:
            scope["state"]["problem"] = "internal_error"
            record = _record(scope, 500)
            if record is not None:
                with suppress(AuditError):
                    await log.write(record)
            raise


def _record(scope: Scope, status: int) -> dict[str, Any] | None:
    """What is written of a request; None if nothing is."""
    state = scope["state"]
    noted: Noted | None = state.get("noted")
    login: Attempt | None = state.get("login")
    problem: str | None = state.get("problem")
    if noted is not None:
        return _envelope(scope, "prediction", noted.who, status, problem) | _of(noted, status)
    if login is not None and problem in _RECORDED_LOGINS:
        return _envelope(scope, "login", login.who, status, problem)
    return None


def _envelope(
    scope: Scope, event: str, who: Who | None, status: int, problem: str | None
) -> dict[str, Any]:
    return {
        "event": event,
        "who": {"name": who.name, "kind": who.kind} if who is not None else None,
        "address": scope["client"][0] if scope["client"] else None,
        "request_id": scope["state"]["request_id"],
        "route": scope["path"],
        "status": status,
        "problem": problem,
    }


def _of(noted: Noted, status: int) -> dict[str, Any]:
    result = noted.result if status == 200 else None
    point = result.operating_point if result is not None else None
    return {
        "model": _model(noted.bundle),
        "images": list(noted.images),
        "operating_point": (
            {"name": point.name, "threshold": point.threshold} if point is not None else None
        ),
        "breasts": [_breast(breast) for breast in result.breasts] if result is not None else [],
    }


def _model(bundle: Bundle) -> dict[str, str]:
    manifest = bundle.manifest
    return {"name": manifest.name, "version": manifest.version, "sha256": bundle.sha256}


def _breast(breast: BreastResult) -> dict[str, Any]:
    return {
        "laterality": breast.laterality,
        "class": breast.label,
        "calibrated_probability": breast.probability,
    }
