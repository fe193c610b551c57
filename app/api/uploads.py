"""Request body -> files and fields, in memory, within limits."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from starlette.formparsers import MultiPartException, MultiPartParser

from app.problems import Refusal


@dataclass(frozen=True)
class Upload:
    """One file; ``name`` is the caller's and is only compared, never logged or answered."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Form:
    files: tuple[Upload, ...]
    fields: dict[str, str]


class _InMemoryParser(MultiPartParser):
    spool_max_size = 2**62  # never to disk; the body limit bounds it


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises ``Refusal`` (``body_too_large``)."""
    return b"".join([chunk async for chunk in _limited(request, max_bytes)])


async def read_form(request: Request, max_bytes: int, max_files: int) -> Form:
    """The parts of a ``multipart/form-data`` body. Raises ``Refusal``."""
    parser = _InMemoryParser(
        request.headers,
        _limited(request, max_bytes),
        # one more than allowed: the caller of this function knows the better message
        max_files=max_files + 1,
        max_fields=16,
        max_part_size=2**20,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        if "Too many files" in str(error):
            raise Refusal("too_many_images", f"At most {max_files} images are accepted.") from None
        raise Refusal("invalid_multipart", "The multipart body is malformed.") from None
    files: list[Upload] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields[name] = value
        elif name == "series":  # curl -F series=@series.json gives it a file name
            fields[name] = (await value.read()).decode("utf-8", "replace")
        else:
            files.append(Upload(value.filename or "", await value.read()))
    return Form(tuple(files), fields)


def is_multipart(request: Request) -> bool:
    content_type = request.headers.get("content-type", "")
    return content_type.split(";")[0].strip().lower() == "multipart/form-data"


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    too_large = Refusal("body_too_large", f"At most {max_bytes} bytes are accepted.")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise too_large
        yield chunk
