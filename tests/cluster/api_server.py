"""A real Kubernetes API server with its etcd, on loopback, in a folder that is thrown away. There
are no nodes and no controllers: it checks and keeps what it is given, and nothing runs."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks.service import stop
from tests.real_parts import require
from tests.serving import free_port

_READY_SECONDS = 120
_STOP_SECONDS = 30


@dataclass(frozen=True)
class Cluster:
    """The way to a running API server."""

    kubeconfig: Path

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.kubeconfig.parent)
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "HOME": home}

    def kubectl(self, *arguments: str, given: Any = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl; ``given`` is a manifest, or several, for its standard input."""
        manifests = given if isinstance(given, list) else [given]
        return subprocess.run(
            [require("kubectl"), *arguments],
            input=None if given is None else yaml.safe_dump_all(manifests),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def asked(self, *arguments: str, given: Any = None) -> str:
        """What kubectl printed. Raises ``AssertionError`` where it failed."""
        done = self.kubectl(*arguments, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def applied(self, manifests: list[dict[str, Any]], *options: str) -> list[dict[str, Any]]:
        """Apply on the server's side, and read back what it has now, in the same order."""
        self.asked("apply", "--server-side", *options, "--filename=-", given=manifests)
        return self.kept(manifests)

    def kept(self, manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        listed = json.loads(self.asked("get", "--output=json", "--filename=-", given=manifests))
        found: list[dict[str, Any]] = listed.get("items", [listed])
        return found


@contextmanager
def api_server(program: Path, folder: Path) -> Iterator[Cluster]:
    """Start etcd and ``program``, a kube-apiserver; stop both at the end."""
    etcd, peers, port = free_port(), free_port(), free_port()
    token = secrets.token_hex()
    (folder / "tokens.csv").write_text(f"{token},checker,checker,system:masters\n")
    (folder / "accounts.pem").write_bytes(_private_key())
    cluster = Cluster(folder / "kubeconfig")
    cluster.kubeconfig.write_text(_kubeconfig(port, folder / "apiserver.crt", token))
    store = [
        require("etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{etcd}",
        f"--advertise-client-urls=http://127.0.0.1:{etcd}",
        f"--listen-peer-urls=http://127.0.0.1:{peers}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}",
        f"--initial-cluster=default=http://127.0.0.1:{peers}",
    ]
    server = [
        str(program),
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}",  # a certificate of its own making
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'accounts.pem'}",
        f"--service-account-signing-key-file={folder / 'accounts.pem'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none",
    ]
    with _running(store, folder / "etcd.log"), _running(server, folder / "server.log") as process:
        deadline = time.monotonic() + _READY_SECONDS
        while cluster.kubectl("get", "--raw=/readyz").returncode:
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield cluster


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        stop(process, _STOP_SECONDS)


def _private_key() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _kubeconfig(port: int, certificate: Path, token: str) -> str:
    address = {
        "server": f"https://127.0.0.1:{port}",
        "certificate-authority": str(certificate),
    }
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "check", "cluster": address}],
            "users": [{"name": "checker", "user": {"token": token}}],
            "contexts": [{"name": "check", "context": {"cluster": "check", "user": "checker"}}],
            "current-context": "check",
        }
    )
