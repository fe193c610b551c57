"""The archive, as a DICOMweb client sees it: QIDO-RS, WADO-RS and STOW-RS (PS3.18, chapter 10).

Only what the standard makes every server answer is relied on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from app.bridge import multipart
from app.bridge.faults import Unavailable, no_answer

_STUDY_UID, _SERIES_UID, _SOP_UID = "0020000D", "0020000E", "00080018"
_STUDY_DATE, _MODALITY, _SERIES_DESCRIPTION = "00080020", "00080060", "0008103E"
_PATIENT_ID, _ISSUER, _STUDY_INSTANCES = "00100020", "00100021", "00201208"
_UID = re.compile(r"[0-9.]{1,64}")  # it becomes part of a path
_NOT_ASCII = re.compile(r"[^\x20-\x7e]+")
_NOT_IN_URL = re.compile(r"[^A-Za-z0-9._~,*-]")
_JSON = {"Accept": "application/dicom+json"}
# As it is stored, whatever its transfer syntax (PS3.18, 8.7.3.5); nothing is packed twice
_AS_STORED = {
    "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',
    "Accept-Encoding": "identity",
}
_MULTIPART_BYTES = 4096  # boundaries and headers around one part, at most

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A study as QIDO-RS lists it; text is empty where the archive has none."""

    uid: str
    date: str
    patient_id: str
    issuer_of_patient_id: str
    instances: int | None
    """How many instances of any kind it has, where the archive says so."""


@dataclass(frozen=True)
class Instance:
    """An instance of a study, with what its series says of it."""

    uid: str
    series_uid: str
    modality: str
    series_description: str


class TooLarge(Exception):
    """An instance has more bytes than were allowed for it."""


class Archive:
    """Every method raises ``Unavailable`` where the archive does not do its part."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def studies(self, matching: Mapping[str, str]) -> list[Study]:
        """Studies that match, such as ``{"PatientID": "7"}``, each once, and perhaps others: text
        with signs beyond letters and digits is matched loosely."""
        asked = {**matching, "includefield": f"{_STUDY_INSTANCES},{_ISSUER}"}
        return [
            Study(
                uid=_text(found, _STUDY_UID),
                date=_text(found, _STUDY_DATE),
                patient_id=_text(found, _PATIENT_ID),
                issuer_of_patient_id=_text(found, _ISSUER),
                instances=_number(found, _STUDY_INSTANCES),
            )
            for found in self._found("studies", asked, _STUDY_UID)
        ]

    def instances(self, study_uid: str) -> list[Instance]:
        """All instances of a study; none if the archive does not have it (any more)."""
        series = {
            _text(found, _SERIES_UID): found
            for found in self._found(f"studies/{study_uid}/series", {}, _SERIES_UID)
        }
        return [
            Instance(
                uid=_text(found, _SOP_UID),
                series_uid=_text(found, _SERIES_UID),
                modality=_text(series.get(_text(found, _SERIES_UID), {}), _MODALITY),
                series_description=_text(
                    series.get(_text(found, _SERIES_UID), {}), _SERIES_DESCRIPTION
                ),
            )
            for found in self._found(f"studies/{study_uid}/instances", {}, _SOP_UID)
        ]

    def metadata(self, study_uid: str, instance: Instance) -> Attributes:
        """The DICOM JSON of one instance (PS3.18, annex F)."""
        response = self._send(
            self._client.build_request(
                "GET", f"{_path(study_uid, instance)}/metadata", headers=_JSON
            )
        )
        return _objects(response)[0]

    def retrieve(self, study_uid: str, instance: Instance, max_bytes: int) -> bytes:
        """The Part 10 file of one instance; ``TooLarge`` beyond ``max_bytes``."""
        request = self._client.build_request("GET", _path(study_uid, instance), headers=_AS_STORED)
        body = bytearray()
        with _faults_of_the_archive():
            response = self._client.send(request, stream=True)
            with closing(response):
                _expect_success(response)
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > max_bytes + _MULTIPART_BYTES:
                        raise TooLarge
        try:
            (part,) = multipart.decode(response.headers.get("Content-Type", ""), bytes(body))
        except ValueError:
            raise Unavailable("archive", "unreadable_answer") from None
        if len(part) > max_bytes:
            raise TooLarge
        return part

    def store(self, study_uid: str, files: Mapping[str, bytes]) -> None:
        """Store Part 10 files, by SOP Instance UID, into their study.

        What counts is not the answer to STOW-RS but what the study holds afterwards: servers
        report an instance that they have already, here a success, in many ways.
        """
        content_type, pieces = multipart.encode(list(files.values()))
        headers = {
            **_JSON,
            "Content-Type": content_type,
            "Content-Length": str(sum(map(len, pieces))),
        }
        self._send(
            self._client.build_request(
                "POST", f"studies/{study_uid}", content=iter(pieces), headers=headers
            ),
            also=(400, 409),  # none stored (PS3.18, 10.5.3): because all are there?
        )
        if not files.keys() <= {instance.uid for instance in self.instances(study_uid)}:
            raise Unavailable("archive", "not_stored")

    def _found(self, path: str, matching: Mapping[str, str], key: str) -> Iterator[Attributes]:
        """What a search finds, each ``key`` once.

        A server may answer in pages of its own size (PS3.18, 8.3.4), so it is asked on until it
        has nothing new. ``limit`` is never sent: Orthanc before 1.12.6 loses studies when
        ``limit``, ``offset`` and ModalitiesInStudy meet.
        """
        seen: set[str] = set()
        while True:
            query = {**matching, **({"offset": str(len(seen))} if seen else {})}
            url = f"{path}?{'&'.join(f'{name}={_in_url(v)}' for name, v in query.items())}"
            response = self._send(self._client.build_request("GET", url, headers=_JSON))
            page = _objects(response) if response.status_code == 200 else []  # 204: none
            before = len(seen)
            for found in page:
                uid = _text(found, key)
                if uid not in seen and _UID.fullmatch(uid):
                    seen.add(uid)
                    yield found
            if len(seen) == before:
                return

    def _send(self, request: httpx.Request, also: Sequence[int] = ()) -> httpx.Response:
        with _faults_of_the_archive():
            response = self._client.send(request)
        if response.status_code not in also:
            _expect_success(response)
        return response


@contextmanager
def _faults_of_the_archive() -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise no_answer("archive", error) from None
    except httpx.DecodingError:
        raise Unavailable("archive", "unreadable_answer") from None


def _expect_success(response: httpx.Response) -> None:
    if not response.is_success:
        denied = response.status_code in (401, 403, 429, 503)
        raise Unavailable("archive", f"http_{response.status_code}", everyone=denied)


def _in_url(value: str) -> str:
    """``value`` with wildcards (PS3.4, C.2.2.2.4) in place of what a URL cannot hold as it is:
    Orthanc's plug-in 1.7 matches %20 as three characters, and Orthanc drops what is not ASCII."""
    return _NOT_IN_URL.sub("?", _NOT_ASCII.sub("*", value))


def _path(study_uid: str, instance: Instance) -> str:
    return f"studies/{study_uid}/series/{instance.series_uid}/instances/{instance.uid}"


def _objects(response: httpx.Response) -> list[Attributes]:
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Unavailable("archive", "unreadable_answer")
    return found


def _first(found: Attributes, tag: str) -> Any:
    values = found.get(tag, {}).get("Value") or [None]
    return values[0]


def _text(found: Attributes, tag: str) -> str:
    value = _first(found, tag)
    return value.strip() if isinstance(value, str) else ""


def _number(found: Attributes, tag: str) -> int | None:
    try:
        return int(_first(found, tag))
    except (TypeError, ValueError):
        return None
