"""A real haproxy in front of several services, with files of its own in a temporary folder."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service import free_port

_UP_SECONDS = 20.0

# leastconn: a series keeps a replica longer than a single. Connections to replicas are reused only
# for requests after the first of a client, which haproxy may repeat on another (http-reuse safe)
_CONFIGURATION = """\
global
    pidfile {folder}/haproxy.pid
    stats socket {folder}/haproxy.sock mode 600 level admin
    maxconn 4000
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch
    http-reuse safe
frontend exams
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    balance leastconn
    option httpchk GET /healthz/ready
    http-check expect status 200
    default-server check inter 200ms fall 2 rise 1
{servers}
"""


class BalancerError(Exception):
    """haproxy did not start, or does not do what it was told."""


@dataclass(frozen=True)
class Balancer:
    port: int
    pid: int
    _admin: Path

    def drain(self, name: str) -> None:
        """Give ``name`` no new request, and wait until it has none."""
        self._command(f"set server replicas/{name} state drain")
        self._wait(name, lambda row: row["scur"] == "0")

    def resume(self, name: str) -> None:
        """Give ``name`` requests again, once its probe succeeds."""
        self._command(f"set server replicas/{name} state ready")
        self._wait(name, _is_up)

    def wait_until_up(self, name: str) -> None:
        self._wait(name, _is_up)

    def _wait(self, name: str, true_of: Callable[[dict[str, str]], bool]) -> None:
        deadline = time.monotonic() + _UP_SECONDS
        while not true_of(self._row(name)):
            if time.monotonic() > deadline:
                row = self._row(name)
                raise BalancerError(f"haproxy says of {name}: {row['status']}, {row['scur']} open")
            time.sleep(0.05)

    def _row(self, name: str) -> dict[str, str]:
        rows = csv.DictReader(self._command("show stat").removeprefix("# ").splitlines())
        return next(row for row in rows if row["svname"] == name)

    def _command(self, line: str) -> str:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(5)
            admin.connect(str(self._admin))
            admin.sendall(f"{line}\n".encode("ascii"))
            return b"".join(iter(lambda: admin.recv(65_536), b"")).decode("ascii")


def _is_up(row: Mapping[str, str]) -> bool:
    """Before its first probe a server counts as up."""
    return row["status"] == "UP" and row["check_status"].endswith("L7OK")


def program() -> str | None:
    """Path of haproxy; Debian puts it where only root looks."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def running_balancer(replicas: Mapping[str, int]) -> Iterator[Balancer]:
    """Start haproxy before ``replicas`` (port by name), wait until it has found all of them, stop
    it at the end. Raises ``BalancerError``."""
    haproxy = program()
    if haproxy is None:
        raise BalancerError("haproxy is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as log:
        folder = Path(name)
        servers = "\n".join(
            f"    server {replica} 127.0.0.1:{place}" for replica, place in replicas.items()
        )
        configuration = folder / "haproxy.cfg"
        configuration.write_text(_CONFIGURATION.format(folder=folder, port=port, servers=servers))
        process = subprocess.Popen(
            [haproxy, "-db", "-f", str(configuration)], stdout=log, stderr=log
        )
        balancer = Balancer(port, process.pid, folder / "haproxy.sock")
        try:
            deadline = time.monotonic() + _UP_SECONDS
            while not balancer._admin.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    printed = log.read()[-2000:].decode(errors="replace")
                    raise BalancerError(f"haproxy did not start:\n{printed}")
                time.sleep(0.05)
            for replica in replicas:
                balancer.wait_until_up(replica)
            yield balancer
        finally:
            process.terminate()
            process.wait()
