"""``multipart/related; type="application/dicom"`` (PS3.18, 8.6.1.2), both ways."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from email.message import Message

_PART_HEADER = b"Content-Type: application/dicom\r\n\r\n"


def encode(parts: Sequence[bytes]) -> tuple[str, list[bytes]]:
    """The Content-Type and the body, in pieces that are not copied, of Part 10 files."""
    boundary = secrets.token_hex(16)
    opening = f"--{boundary}\r\n".encode() + _PART_HEADER
    pieces = [piece for part in parts for piece in (opening, part, b"\r\n")]
    content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return content_type, [*pieces, f"--{boundary}--\r\n".encode()]


def decode(content_type: str, body: bytes) -> list[bytes]:
    """The contents of the parts of a body; ``ValueError`` where it is not whole multipart."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/related" or not isinstance(boundary, str):
        raise ValueError("not multipart/related with a boundary")
    delimiter = b"--" + boundary.encode()
    start = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if start == 1:
        raise ValueError("no part begins")
    parts: list[bytes] = []
    while True:
        start += len(delimiter)
        if body.startswith(b"--", start):
            return parts
        content = body.find(b"\r\n\r\n", start)
        end = body.find(b"\r\n" + delimiter, content)
        if content < 0 or end < 0:
            raise ValueError("a part does not end")
        parts.append(body[content + 4 : end])
        start = end + 2
