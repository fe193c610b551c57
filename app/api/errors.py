"""Refusals and failures -> RFC 9457 problems. The only place where an error becomes HTTP."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from app import metrics
from app.logs import place_of
from app.problems import PROBLEMS, Refusal

_LOG = logging.getLogger("mammoseq")
_OF_FILES = {"GET", "HEAD"}  # which are mounted, and no route
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


class ProblemBody(BaseModel):
    """An RFC 9457 problem; ``code`` is stable, ``title`` and ``detail`` may be reworded."""

    type: str = Field(examples=["urn:mammoseq:problem:broken_image"])
    title: str = Field(examples=["The image cannot be decoded"])
    status: int = Field(examples=[422])
    code: str = Field(examples=["broken_image"])
    detail: str = Field(examples=["The PNG data cannot be decoded."])
    advice: str = Field(examples=["The file is damaged or cut short."])
    request_id: str
    error: str = Field(
        description="code and detail, for clients of the Open Inference Protocol",
        examples=["broken_image: The PNG data cannot be decoded."],
    )


def problem_response(request: Request, refusal: Refusal) -> JSONResponse:
    """Build the answer for a refusal."""
    code = refusal.code
    problem = PROBLEMS[code]
    request.state.problem = code
    metrics.PROBLEMS.labels(code).inc()
    body = _body(refusal, request.state.request_id)
    headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 15.5.2
    return JSONResponse(
        body.model_dump(), problem.status, headers, media_type="application/problem+json"
    )


def raw_problem(code: str, detail: str, request_id: str) -> bytes:
    """A whole answer on a connection, for requests that no application sees to their end."""
    metrics.PROBLEMS.labels(code).inc()
    problem = PROBLEMS[code]
    body = _body(Refusal(code, detail), request_id or uuid.uuid4().hex).model_dump_json().encode()
    lines = (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        "connection: close",
    )
    return "\r\n".join([*lines, "", ""]).encode() + body


def _body(refusal: Refusal, request_id: str) -> ProblemBody:
    problem = PROBLEMS[refusal.code]
    return ProblemBody(
        type=f"urn:mammoseq:problem:{refusal.code}",
        title=problem.title,
        status=problem.status,
        code=refusal.code,
        detail=refusal.detail,
        advice=problem.advice,
        request_id=request_id,
        error=f"{refusal.code}: {refusal.detail}",
    )


def install(application: FastAPI) -> None:
    """Register the handlers."""

    @application.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        return problem_response(request, refusal)

    @application.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem_response(request, Refusal("invalid_request", f"{where}: {first['msg']}"))

    @application.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        code = _HTTP_CODES.get(error.status_code, "invalid_request")
        response = problem_response(request, Refusal(code, str(error.detail)))
        response.headers.update(error.headers or {})
        if code == "method_not_allowed":
            methods = set(_methods(request.app.routes, request.scope)) or _OF_FILES
            response.headers["Allow"] = ", ".join(sorted(methods))
        return response


def _methods(routes: Iterable[BaseRoute], scope: Scope) -> Iterator[str]:
    """Those that the address has (RFC 9110 15.5.6); the error knows those of one route only."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _methods(included.routes, scope)
        elif route.matches(scope)[0] is not Match.NONE:
            yield from getattr(route, "methods", None) or ()


def failure_response(request: Request, error: Exception) -> JSONResponse:
    """Log an unexpected exception and build its answer.

    The message of an exception may quote a file; its type and place do not.
    """
    fields = {
        "request_id": request.state.request_id,
        "trace_id": request.state.trace_id,
        "type": type(error).__name__,
        "at": place_of(error),
    }
    _LOG.error("internal_error", extra={"fields": fields})
    return problem_response(request, Refusal("internal_error", "An unexpected fault was logged."))


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the problems that a route can answer, grouped by status."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        problem = PROBLEMS[code]
        entry = responses.setdefault(
            problem.status,
            {"description": "", "content": {"application/problem+json": {"examples": {}}}},
        )
        entry["description"] += f"- `{code}`: {problem.title}. {problem.advice}\n"
        content = entry["content"]["application/problem+json"]
        content["schema"] = {"$ref": "#/components/schemas/ProblemBody"}
        content["examples"][code] = {
            "value": {
                "type": f"urn:mammoseq:problem:{code}",
                "title": problem.title,
                "status": problem.status,
                "code": code,
                "detail": problem.title + ".",
                "advice": problem.advice,
                "request_id": "01J9Z3M6Q2",
                "error": f"{code}: {problem.title}.",
            }
        }
    return responses
