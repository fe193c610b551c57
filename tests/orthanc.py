"""A real PACS for the tests: Orthanc with its DICOMweb plug-in, on free ports."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import Dataset, dcmread

from app.bridge.multipart import decode
from tests.real_parts import require
from tests.serving import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_CALLING_TITLE = "MODALITY"
_READY_SECONDS = 90


class Orthanc:
    """One archive that survives ``kill`` and ``start``: same folder, same ports.

    Orthanc 1.10 listens on every address of the machine. What comes from another one is refused:
    by ``RemoteAccessAllowed`` over HTTP, and over DICOM because only one modality, on
    127.0.0.1, is known and its address is checked.
    """

    def __init__(
        self,
        folder: Path,
        *,
        login: tuple[str, str] | None = None,
        **configuration: Any,
    ) -> None:
        self._program = require("Orthanc")
        if not PLUGIN.exists():
            pytest.skip("Orthanc's DICOMweb plug-in is not installed")
        self._folder = folder
        self._http_port, self._dicom_port = free_port(), free_port()
        self._configuration = {
            "Name": "tests",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self._http_port,
            "DicomPort": self._dicom_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": login is not None,
            "RegisteredUsers": dict([login]) if login else {},
            "DicomAlwaysAllowStore": False,
            "DicomAlwaysAllowEcho": False,
            "DicomCheckModalityHost": True,
            "DicomModalities": {"modality": [_CALLING_TITLE, "127.0.0.1", free_port()]},
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **configuration,
        }
        self._process: subprocess.Popen[bytes] | None = None
        address = f"http://127.0.0.1:{self._http_port}"
        self.web = f"{address}/dicom-web"
        self.client = httpx.Client(
            base_url=address,
            auth=login,
            trust_env=False,
            timeout=30,
        )

    def start(self, **configuration: Any) -> None:
        """Start, with other ``configuration`` than before if given, and wait until it answers; with
        ``HttpServerEnabled=False`` only modalities are answered."""
        self._configuration |= configuration
        file = self._folder / "orthanc.json"
        file.write_text(json.dumps(self._configuration))
        with (self._folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(file)], stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self._folder / "orthanc.log").read_text()
            if self._answers():
                return
            time.sleep(0.05)
        raise AssertionError("Orthanc was not ready in time")

    def _answers(self) -> bool:
        try:
            if self._configuration.get("HttpServerEnabled", True):
                self.client.get("/system").raise_for_status()
            else:
                socket.create_connection(("127.0.0.1", self._dicom_port), timeout=5).close()
        except (httpx.TransportError, OSError):
            return False
        return True

    def freeze(self) -> None:
        """SIGSTOP: connections are taken, by the kernel, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send(self, folder: Path, files: Sequence[bytes]) -> None:
        """Send files as a modality does, with ``storescu``: JPEG 2000 lossless or uncompressed."""
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{number}.dcm" for number in range(len(files))]
        for path, file in zip(paths, files, strict=True):
            path.write_bytes(file)
        subprocess.run(
            [
                require("storescu"), "-aet", _CALLING_TITLE, "-R", "-xv",
                "127.0.0.1", str(self._dicom_port), *map(str, paths),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip

    def instances(self, study_uid: str) -> list[Dataset]:
        """Every instance of a study, by WADO-RS as a viewer fetches it."""
        response = self.client.get(
            f"/dicom-web/studies/{study_uid}",
            headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
        )
        if response.status_code == 404:
            return []
        response.raise_for_status()
        files = decode(response.headers["Content-Type"], response.content)
        return [dcmread(BytesIO(file)) for file in files]


@contextmanager
def running_orthanc(folder: Path, **configuration: Any) -> Iterator[Orthanc]:
    """A fresh archive, killed at the end; ``configuration`` as for ``Orthanc``."""
    orthanc = Orthanc(folder, **configuration)
    try:
        orthanc.start()
        yield orthanc
    finally:
        orthanc.kill()
        orthanc.client.close()
