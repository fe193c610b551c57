"""The service, as its client sees it: which model answers, and what it reads in images."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import httpx

from app.bridge import multipart
from app.bridge.faults import Refused, Unavailable, no_answer
from app.tracing.spans import note, span, under_way

# What is wrong with the images themselves. Any other refusal (a wrong key, address or version) is
# cured on the service's side, and then the study is read.
_REFUSING = (400, 413, 415, 422)
# Refusals of how it was asked: another version of the service would not give them
_OF_THE_REQUEST = ("invalid_multipart", "invalid_request")
_CODE = re.compile(r"[a-z_]{1,64}")
_BUSY_SECONDS = 60.0  # longest wait between two attempts at a busy service
_BUSY_ATTEMPTS = 10


class Service:
    """Every method raises ``Unavailable`` where the service does not do its part."""

    def __init__(self, client: httpx.Client, objects: str) -> None:
        self._client = client
        self._objects = objects

    def model(self) -> str:
        """What results carry as DeviceSerialNumber: the start of the bundle's SHA-256."""
        response = self._send(self._client.build_request("GET", "v1/models"))
        _expect_success(response)
        try:
            return str(response.json()["models"][0]["sha256"])[:16]
        except (ValueError, LookupError, TypeError):
            raise Unavailable("service", "unreadable_answer", everyone=True) from None

    def read(self, images: Sequence[bytes]) -> list[bytes]:
        """Part 10 files of one patient's images -> Part 10 files of the results.

        ``Refused`` with the problem's code where the images are at fault.
        """
        content_type, pieces = multipart.encode(images)
        headers = {
            "Accept": 'multipart/related; type="application/dicom"',
            "Content-Type": content_type,
            "Content-Length": str(sum(map(len, pieces))),
        }
        for _ in range(_BUSY_ATTEMPTS):
            response = self._send(
                self._client.build_request(
                    "POST",
                    "predict/series",
                    params={"objects": self._objects},
                    content=iter(pieces),
                    headers=headers,
                )
            )
            if response.status_code != 429:
                break
            time.sleep(_wait_seconds(response))
        if response.status_code in _REFUSING:
            code = _problem_code(response)
            if code in _OF_THE_REQUEST:
                raise Unavailable("service", code, everyone=True)
            raise Refused(code)
        _expect_success(response)
        try:
            return multipart.decode(response.headers.get("Content-Type", ""), response.content)
        except ValueError:
            raise Unavailable("service", "unreadable_answer") from None

    def _send(self, request: httpx.Request) -> httpx.Response:
        with span(request.method, {"http.request.method": request.method}, "client"):
            return self._sent(request)

    def _sent(self, request: httpx.Request) -> httpx.Response:
        begun = under_way()
        if begun is not None:
            request.headers["traceparent"] = begun.traceparent
        try:
            response = self._client.send(request)
            note({"http.response.status_code": response.status_code})
            return response
        except httpx.TransportError as error:
            raise no_answer("service", error) from None
        except httpx.DecodingError:
            raise Unavailable("service", "unreadable_answer") from None


def _expect_success(response: httpx.Response) -> None:
    """500 may be this study's fault; what else is not a success, the next study would meet too."""
    if not response.is_success:
        code = f"http_{response.status_code}"
        raise Unavailable("service", code, everyone=response.status_code != 500)


def _wait_seconds(response: httpx.Response) -> float:
    try:
        return min(_BUSY_SECONDS, max(0.1, float(response.headers["Retry-After"])))
    except (LookupError, ValueError):
        return 1.0


def _problem_code(response: httpx.Response) -> str:
    """The ``code`` of an RFC 9457 answer; it is logged, so nothing else that came may pass."""
    try:
        code = response.json()["code"]
    except (ValueError, LookupError, TypeError):
        code = None
    if isinstance(code, str) and _CODE.fullmatch(code):
        return code
    return f"http_{response.status_code}"
