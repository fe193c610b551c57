"""The reading page: static files, which say nothing of anybody and are asked for again when they
have changed."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

mimetypes.add_type("text/javascript", ".js")  # whatever the machine's table says


class _Files(StaticFiles):
    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"  # kept, and compared by its ETag
        return response


router = APIRouter(include_in_schema=False)
_FILES = _Files(directory=Path(__file__).resolve().parents[1] / "web")
files = GZipMiddleware(_FILES, minimum_size=1000)  # to be mounted at /web


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The page."""
    return await _FILES.get_response("index.html", request.scope)
