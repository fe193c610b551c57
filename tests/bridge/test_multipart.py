"""multipart/related bodies: what is written is what others read, and the other way round."""

from __future__ import annotations

import email

import pytest

from app.bridge.multipart import decode, encode

FILES = [b"\0\1\2 binary \xff", b"", b"--\r\n--dashes and line ends\r\n\r\n--\r\n", b"\r\n"]


def test_what_is_encoded_another_reader_decodes() -> None:
    content_type, pieces = encode([b"first", b"second"])
    message = email.message_from_bytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + b"".join(pieces)
    )
    parts = message.get_payload()
    assert [part.get_content_type() for part in parts] == ["application/dicom"] * 2
    assert [part.get_payload(decode=True) for part in parts] == [b"first", b"second"]
    assert message.get_param("type") == "application/dicom"


@pytest.mark.parametrize("files", [[], FILES[:1], FILES], ids=len)
def test_any_bytes_come_back_as_they_went(files: list[bytes]) -> None:
    content_type, pieces = encode(files)
    assert decode(content_type, b"".join(pieces)) == files


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/related; boundary=XX",
        'multipart/related; type="application/dicom"; boundary="XX"',
        "Multipart/Related;boundary=XX;type=application/dicom",
    ],
)
@pytest.mark.parametrize("before", [b"", b"\r\n", b"a preamble\r\n"])
@pytest.mark.parametrize("after", [b"", b"\r\n", b"\r\nan epilogue"])
def test_parts_are_found_as_servers_write_them(
    content_type: str, before: bytes, after: bytes
) -> None:
    part = b"--XX\r\nContent-Type: application/dicom\r\nMIME-Version: 1.0\r\n\r\n"
    body = before + part + b"one\r\n" + part + b"two\r\n--XX--" + after
    assert decode(content_type, body) == [b"one", b"two"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"[]"),
        ("", b""),
        ("multipart/related", b"--XX--"),
        ("multipart/related; boundary=XX", b""),
        ("multipart/related; boundary=XX", b"--YY\r\n\r\none\r\n--YY--"),
        ("multipart/related; boundary=XX", b"--XX\r\nContent-Type: application/dicom\r\n"),
        ("multipart/related; boundary=XX", b"--XX\r\n\r\ncut sho"),
        ("multipart/related; boundary=XX", b"--XX\r\n\r\none\r\n--XX\r\n\r\ncut sho"),
    ],
)
def test_a_body_that_is_not_whole_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"multipart|part"):
        decode(content_type, body)
