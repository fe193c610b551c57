"""Request body -> files and their description, in memory, within limits.

A body is one file, or ``multipart/form-data``, or ``multipart/related`` as STOW-RS sends it, or
JSON with base64. Where several files are welcome, a file that is a zip archive stands for what is
in it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.formparsers import MultiPartException, MultiPartParser, MultipartPart

from app.api.bodies import WHOLE_BODY
from app.api.schemas import FileIn, FilesIn
from app.problems import Refusal

T = TypeVar("T", bound=BaseModel)

_FORM = "multipart/form-data"
_RELATED = "multipart/related"
_JSON = "application/json"
_ZIP = b"PK\x03\x04"
_ENTRY = b"PK\x01\x02"  # what each entry of its directory begins with
_MOST_ENTRIES = 10_000  # of an archive, with folders and what archivers add
_INFLATED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What archivers add of their own accord
_NOT_SENT = ("__MACOSX/", ".DS_Store", "Thumbs.db")


@dataclass(frozen=True)
class Limits:
    """Most bytes of a body, packed and unpacked, and most files in it."""

    body_bytes: int
    files: int


@dataclass(frozen=True)
class Upload:
    """One file; ``name`` is the caller's and is only compared, never logged or answered."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Received:
    """The files of a request; ``series`` is their description as JSON, if there is one."""

    files: tuple[Upload, ...]
    series: str | None = None


class _InMemoryParser(MultiPartParser):
    """Loses no file: not one that the library takes for a field, nor what a cut body lacks."""

    spool_max_size = 2**62  # never to disk; the body limit bounds it
    ended = False

    def on_headers_finished(self) -> None:
        part = self._current_part
        said = part.content_disposition or b""
        _, options = parse_options_header(said)
        name = options.get(b"name")
        if name not in (None, b"series") and b"filename" not in options and _is_file(part):
            part.content_disposition = said + b'; filename=""'
        super().on_headers_finished()

    def on_part_end(self) -> None:
        if self._current_part.file is None and 0 in self._current_part.data:
            raise MultiPartException("A part that is not text has neither a name nor a type.")
        super().on_part_end()

    def on_end(self) -> None:
        self.ended = True


def _is_file(part: MultipartPart) -> bool:
    """Whether a part without ``filename`` is a file nevertheless: by its type, or by ``filename*``
    (RFC 5987), which older clients write alone for names that are not ASCII."""
    kind = dict(part.item_headers).get(b"content-type", b"text/plain").lower()
    of_text = kind.startswith((b"text/", b"application/json"))
    return not of_text or b"filename*" in (part.content_disposition or b"").lower()


async def receive(request: Request, limits: Limits) -> Received | bytes:
    """The files of any body; bytes for JSON, which the caller parses off the event loop.

    Raises ``Refusal``: ``body_too_large``, ``too_many_images``, ``invalid_multipart``, ``no_file``.
    """
    kind = _media_type(request)[0]
    if kind == _JSON:
        return bytes(await read_body(request, limits))
    if kind == _FORM:
        received = await _read_form(request, limits)
    elif kind == _RELATED:
        received = await _read_related(request, limits)
    else:
        body = await read_body(request, limits)
        received = Received((Upload("", body),) if body else ())
    _check_count(len(received.files), limits)
    return received


async def receive_image(request: Request, limits: Limits) -> bytes:
    """The body, which is the one file. Raises ``Refusal``: ``body_too_large``, ``no_file``,
    ``invalid_request`` for a form."""
    if _media_type(request)[0].startswith("multipart/"):
        raise Refusal("invalid_request", "The image is sent as the body itself, not in parts.")
    body = await read_body(request, limits)
    if not body:
        raise _no_file()
    return body


def parse_file(body: bytes) -> Received:
    """The image of a JSON body. Raises ``Refusal`` (``invalid_json``)."""
    return Received((Upload("", _parsed(FileIn, body).file),))


def parse_files(body: bytes, limits: Limits) -> Received:
    """The files of a JSON body. Raises ``Refusal`` (``invalid_json``, ``too_many_images``)."""
    parsed = _parsed(FilesIn, body)
    _check_count(len(parsed.files), limits)
    series = parsed.series.model_dump_json() if parsed.series else None
    return Received(tuple(Upload(file.name, file.data) for file in parsed.files), series)


def unpacked(files: Sequence[Upload], limits: Limits) -> tuple[Upload, ...]:
    """``files`` with the files of zip archives in their place, in the order of the archive.

    Archives in archives stay files. Raises ``Refusal``: ``broken_archive``, ``body_too_large``,
    ``too_many_images``.
    """
    if not any(file.content.startswith(_ZIP) for file in files):
        return tuple(files)
    found: list[Upload] = []
    left = limits.body_bytes
    for file in files:
        is_archive = file.content.startswith(_ZIP)
        inside = _unzipped(file.content, Limits(left, limits.files)) if is_archive else [file]
        found += inside
        left -= sum(len(entry.content) for entry in inside)
        _check_count(len(found), limits)
    return tuple(found)


def _unzipped(data: bytes, limits: Limits) -> list[Upload]:
    """The files of an archive; they are counted and their sizes summed up before anything is
    inflated."""
    if data.count(_ENTRY) > _MOST_ENTRIES:  # zipfile reads all of them before it can be asked
        raise _too_many(limits)
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            entries = [
                entry
                for entry in archive.infolist()
                if not entry.is_dir() and not any(part in entry.filename for part in _NOT_SENT)
            ]
            if len(entries) > limits.files:
                raise _too_many(limits)
            if sum(entry.file_size for entry in entries) > limits.body_bytes:
                raise Refusal("body_too_large", "The archive unpacks to more than is accepted.")
            # Of bzip2 and LZMA zipfile inflates everything, whatever it is asked for
            if not all(entry.compress_type in _INFLATED for entry in entries):
                raise Refusal("broken_archive", "Of compressions, the archive may use deflate.")
            return [Upload(entry.filename, _inflated(archive, entry)) for entry in entries]
    except (
        zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, OSError, EOFError, ValueError,
        RuntimeError, NotImplementedError,
    ):  # fmt: skip
        raise Refusal("broken_archive", "The zip archive is damaged or encrypted.") from None


def _inflated(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry, of which no more is inflated than it claims: ``ZipFile.read`` inflates up to 2 GB
    at once and only then looks how long it should have been."""
    with archive.open(entry) as opened:
        return opened.read(entry.file_size)


async def read_body(request: Request, limits: Limits) -> bytes:
    """The whole body. Raises ``Refusal`` (``body_too_large``)."""
    chunks = [chunk async for chunk in _limited(request, limits) if chunk]
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _in_bytes(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """For parsers that want no bytearray."""
    async for chunk in chunks:
        yield bytes(chunk)


async def _read_form(request: Request, limits: Limits) -> Received:
    parser = _InMemoryParser(
        request.headers,
        _in_bytes(_limited(request, limits)),
        max_files=limits.files + 1,  # one more than allowed: we know the better message
        max_fields=16,
        max_part_size=2**20,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        if "Too many files" in str(error):
            raise _too_many(limits) from None
        raise Refusal("invalid_multipart", "The multipart body is malformed.") from None
    if not parser.ended:
        raise Refusal("invalid_multipart", "The multipart body is cut short.")
    files: list[Upload] = []
    series: str | None = None
    for name, value in form.multi_items():
        if name == "series":  # curl -F series=@series.json gives it a file name
            text = (
                value if isinstance(value, str) else (await value.read()).decode(errors="replace")
            )
            series = text or None
        elif not isinstance(value, str):
            files.append(Upload(value.filename or "", await value.read()))
    return Received(tuple(files), series)


async def _read_related(request: Request, limits: Limits) -> Received:
    """The parts of ``multipart/related`` (RFC 2387), each a file (PS3.18 10.5)."""
    boundary = _media_type(request)[1].get("boundary")
    if not boundary:
        raise Refusal("invalid_multipart", "The multipart body has no boundary.")
    parts: list[list[bytes]] = []

    def begin() -> None:
        if len(parts) > limits.files:
            raise _too_many(limits)
        parts.append([])

    def data(chunk: bytes, start: int, end: int) -> None:
        parts[-1].append(chunk[start:end])

    ended = False

    def end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(
            boundary.encode("latin-1"),
            {"on_part_begin": begin, "on_part_data": data, "on_end": end},
        )
        async for chunk in _without_preamble(_in_bytes(_limited(request, limits)), boundary):
            parser.write(chunk)
        parser.finalize()
    except (FormParserError, UnicodeEncodeError, ValueError):
        raise Refusal("invalid_multipart", "The multipart body is malformed.") from None
    if not ended:
        raise Refusal("invalid_multipart", "The multipart body is cut short.")
    return Received(tuple(Upload("", b"".join(part)) for part in parts))


async def _without_preamble(
    chunks: AsyncGenerator[bytes, None], boundary: str
) -> AsyncGenerator[bytes, None]:
    """``chunks`` from the first boundary on: what is before is to be ignored (RFC 2046 5.1.1)."""
    opening = b"\r\n--" + boundary.encode("latin-1")
    kept = b"\r\n"  # the first boundary may be at the very beginning
    async for chunk in chunks:
        kept += chunk
        place = kept.find(opening)
        if place >= 0:
            yield kept[place:]
            break
        kept = kept[1 - len(opening) :]
    async for chunk in chunks:
        yield chunk


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    too_large = Refusal("body_too_large", f"At most {limits.body_bytes} bytes are accepted.")
    if declared.isdigit() and int(declared) > limits.body_bytes:
        raise too_large
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.body_bytes:
            raise too_large
        yield chunk
    whole = request.scope["state"].pop(WHOLE_BODY, None)
    if whole is not None:  # no longer than was declared
        yield whole


def _media_type(request: Request) -> tuple[str, dict[str, str]]:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    return kind.decode("latin-1").lower(), {
        k.decode("latin-1"): v.decode("latin-1") for k, v in options.items()
    }


def _parsed(kind: type[T], body: bytes) -> T:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise Refusal("invalid_json", first_fault(error)) from None


def first_fault(error: ValidationError) -> str:
    """Where the first fault is and what it is, without a word of the caller's."""
    first = error.errors(include_input=False)[0]
    place = first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"]
    where = ".".join(str(part) for part in place)
    return f"{where}: {first['msg']}" if where else first["msg"]


def _check_count(files: int, limits: Limits) -> None:
    if not files:
        raise _no_file()
    if files > limits.files:
        raise _too_many(limits)


def _no_file() -> Refusal:
    return Refusal("no_file", "The request holds no image.")


def _too_many(limits: Limits) -> Refusal:
    return Refusal("too_many_images", f"At most {limits.files} are accepted.")
