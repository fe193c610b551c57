"""Behind nginx with client certificates, as docs/security.md configures it."""

from __future__ import annotations

import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import httpx
import pytest

from app.access.keys import hash_of, new_key
from tests.pictures import breast, png
from tests.real_parts import require
from tests.serving import REPOSITORY, free_port, serving

trustme = pytest.importorskip("trustme")

IMAGE = png(breast())
KEY = new_key()
HOST = "localhost"


@dataclass
class Front:
    """nginx, and the two authorities: the hospital's, which it trusts, and another."""

    address: str
    hospital: trustme.CA
    other: trustme.CA
    server_authority: trustme.CA

    def client(self, certificate: trustme.LeafCert | None) -> httpx.Client:
        context = ssl.create_default_context()
        self.server_authority.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        return httpx.Client(base_url=self.address, verify=context, timeout=60, trust_env=False)


def documented(changes: dict[str, str]) -> str:
    """The server of docs/security.md with the lines for client certificates, changed as told."""
    text = (REPOSITORY / "docs" / "security.md").read_text()
    server, certificates = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)
    config = server.replace("    client_max", f"{certificates}    client_max", 1)
    for old, new in changes.items():
        assert old in config
        config = config.replace(old, new)
    return config


@pytest.fixture(scope="module")
def front(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    nginx = require("nginx")
    folder = tmp_path_factory.mktemp("mtls")
    hospital, other, own = trustme.CA(), trustme.CA(), trustme.CA()
    certificate = own.issue_cert(HOST)
    certificate.private_key_pem.write_to_path(folder / "key")
    for number, part in enumerate(certificate.cert_chain_pems):
        part.write_to_path(folder / "crt", append=number > 0)
    hospital.cert_pem.write_to_path(folder / "clients")
    port = free_port()
    settings = {
        "trusted_proxies": "127.0.0.1",
        "public_url": f"https://{HOST}:{port}",
        "api_keys": f"pacs:{hash_of(KEY)}",
        "audit_file": folder / "audit.jsonl",
    }
    with serving(bundle_folder, folder, **settings) as service:
        server = documented(
            {
                "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
                "mammoseq.example.org": HOST,
                "/etc/ssl/mammoseq.crt": str(folder / "crt"),
                "/etc/ssl/mammoseq.key": str(folder / "key"),
                "/etc/ssl/clients-ca.crt": str(folder / "clients"),
                "http://127.0.0.1:8000": str(service.client.base_url).rstrip("/"),
            }
        )
        (folder / "nginx.conf").write_text(
            f"user {getuser()};\ndaemon off;\npid {folder}/pid;\nerror_log {folder}/error;\n"
            f"events {{}}\nhttp {{\naccess_log off;\nclient_body_temp_path {folder}/body;\n"
            f"proxy_temp_path {folder}/proxy;\nfastcgi_temp_path {folder}/f;\n"
            f"uwsgi_temp_path {folder}/u;\nscgi_temp_path {folder}/s;\n{server}}}\n"
        )
        running = subprocess.Popen([nginx, "-c", folder / "nginx.conf", "-e", folder / "error"])
        front = Front(f"https://{HOST}:{port}", hospital, other, own)
        try:
            with front.client(None) as client:
                for _ in range(300):
                    assert running.poll() is None, (folder / "error").read_text()
                    try:
                        client.get("/healthz/ready")
                        break
                    except httpx.ConnectError:
                        time.sleep(0.1)
            yield front
        finally:
            running.terminate()
            running.wait(30)


def test_a_client_of_the_hospital_is_let_through_and_still_needs_a_key(front: Front) -> None:
    with front.client(front.hospital.issue_cert("pacs.hospital")) as client:
        headers = {"Authorization": f"Bearer {KEY}"}
        assert client.post("/predict", content=IMAGE, headers=headers).status_code == 200
        assert client.post("/predict", content=IMAGE).json()["code"] == "login_required"
        assert client.get("/metrics").status_code == 403


def test_a_client_without_a_certificate_of_the_hospital_gets_no_further_than_nginx(
    front: Front,
) -> None:
    for certificate in (None, front.other.issue_cert("pacs.hospital")):
        with front.client(certificate) as client:
            refused = client.get("/healthz/ready")
            assert refused.status_code == 400
            assert "SSL certificate" in refused.text
            assert "nginx" in refused.text


def test_the_page_is_told_that_a_login_works(front: Front) -> None:
    with front.client(front.hospital.issue_cert("pc.hospital")) as client:
        assert client.get("/session").json()["https"] is True
