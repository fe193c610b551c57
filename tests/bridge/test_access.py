"""An archive behind TLS with a certificate of its own, and a password; a service with keys."""

from __future__ import annotations

import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import SHUT_WR, create_connection, socket

import httpx
import pytest

from app.access.keys import hash_of, new_key
from tests.bridge.processes import Part, bridge, service, started, until
from tests.orthanc import Orthanc, running_orthanc
from tests.real_parts import require

LOGIN = ("radiology", "S3CRET")
ANSWERED = 'mammoseq_bridge_last_success_timestamp_seconds{side="archive"}'


@dataclass(frozen=True)
class Guarded:
    archive: Orthanc
    url: str
    certificate: Path


@contextmanager
def behind_tls(url: httpx.URL, certificate: Path) -> Iterator[str]:
    """``url`` with TLS before it: Debian's Orthanc 1.10 ends with the first TLS connection to
    it, so a hospital has a proxy there, too."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                suppress(OSError),  # the caller does not trust the certificate, or has gone
                context.wrap_socket(self.request, server_side=True) as caller,
                create_connection((url.host, url.port)) as answerer,
            ):
                back = threading.Thread(target=copy, args=(answerer, caller))
                back.start()
                copy(caller, answerer)
                back.join()

    def copy(source: socket, target: socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_address[1]}{url.path}"
        server.shutdown()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    certificate = folder / "server.pem"
    made = subprocess.run(
        [
            require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=archive",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "-", "-out", "-",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    certificate.write_bytes(made.stdout)
    with (
        running_orthanc(folder, login=LOGIN) as archive,
        behind_tls(httpx.URL(archive.web), certificate) as url,
    ):
        yield Guarded(archive, url, certificate)


def failed(code: str) -> str:
    return f'mammoseq_bridge_failures_total{{code="{code}",side="archive"}}'


@pytest.mark.parametrize(
    ("trusts", "password", "code"),
    [
        (True, "S3CRET", None),
        (True, "wrong", "http_401"),
        (False, "S3CRET", "untrusted_certificate"),
    ],
)
def test_the_archive_is_reached_with_its_certificate_and_the_password(
    guarded: Guarded, tmp_path: Path, trusts: bool, password: str, code: str | None
) -> None:
    settings = {
        "archive_url": guarded.url,
        "archive_user": LOGIN[0],
        "archive_password": password,
    }
    if trusts:
        settings["ca_file"] = str(guarded.certificate)
    part: Part = bridge(guarded.archive, "http://127.0.0.1:9", tmp_path, **settings)
    with started(part):
        sample = failed(code) if code else ANSWERED
        until(lambda: part.metric(sample) > 0, seconds=60, what=sample)
        assert (part.metric(ANSWERED) > 0) == (code is None)
        assert password not in part.printed()


def test_without_the_right_key_the_bridge_waits_and_says_why(
    guarded: Guarded, bundle_folder: Path, tmp_path: Path
) -> None:
    """With it, the other tests have studies read."""
    mammoseq = service(
        bundle_folder, tmp_path, access="login", api_keys=f"bridge:{hash_of(new_key())}"
    )
    part = bridge(
        guarded.archive,
        mammoseq.url,
        tmp_path,
        archive_user=LOGIN[0],
        archive_password=LOGIN[1],
        service_api_key="S3CRET-of-another",
    )
    sample = 'mammoseq_bridge_failures_total{code="http_401",side="service"}'
    with started(mammoseq, part):
        until(lambda: part.metric(sample) > 0, seconds=60, what=sample)
        assert "S3CRET" not in part.printed() + mammoseq.printed()
