"""The two ways in which a study is not read: not now, or not as it is."""

from __future__ import annotations

from typing import Literal

import httpx

Side = Literal["archive", "service"]


class Unavailable(Exception):
    """A side did not do its part; it is asked again, for ever.

    ``code`` is from a closed list (``unreachable``, ``http_503``, ...) and free of identifiers.
    ``everyone``: whether the next study would meet the same fault, as when nothing answers.
    """

    def __init__(self, side: Side, code: str, *, everyone: bool = False) -> None:
        super().__init__(f"{side}: {code}")
        self.side: Side = side
        self.code = code
        self.everyone = everyone


class Refused(Exception):
    """The service will not read these images, ``code`` says why; the same images are not sent
    again."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def no_answer(side: Side, error: httpx.TransportError) -> Unavailable:
    """What a failed connection means. The error's own text may hold an address with a patient's id:
    it goes no further."""
    if isinstance(error, httpx.TimeoutException):
        code = "timeout"
    elif "CERTIFICATE_VERIFY_FAILED" in str(error):
        code = "untrusted_certificate"
    else:
        code = "unreachable"
    return Unavailable(side, code, everyone=True)
