"""The image in real containers, under the restrictions of the cluster's pods: whatever
``k8s/base/deployment.yaml`` takes from the service, podman takes from it here."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
WITHIN_SECONDS = 300
KEY = "mammoseq_" + secrets.token_urlsafe(32)

# Runs in the container, whose network nobody outside can reach; standard input is the body
_ASK = """
import json, os, sys, urllib.error, urllib.request
body = sys.stdin.buffer.read()
headers = {"Authorization": "Bearer " + os.environ["KEY"]} if os.environ.get("KEY") else {}
request = urllib.request.Request("http://127.0.0.1:" + sys.argv[1], body or None, headers)
try:
    with urllib.request.urlopen(request, timeout=60) as answer:
        print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
except OSError:
    print(json.dumps([0, ""]))
"""


def podman(*arguments: str, body: bytes = b"") -> str:
    done = subprocess.run(
        ["podman", *arguments], input=body, capture_output=True, check=False, cwd=_elsewhere().name
    )
    assert done.returncode == 0, f"{done.returncode} of podman {arguments}: {done.stderr!r}"
    return done.stdout.decode()


@cache
def _elsewhere() -> TemporaryDirectory[str]:
    """Where podman is started: its monitor leaves a file ``oom`` there for one that was killed."""
    return TemporaryDirectory(prefix="mammoseq-podman-")


def configure(environment: pytest.MonkeyPatch, folder: Path) -> None:
    """Podman's defaults want systemd; without it, this is what works."""
    if Path("/run/systemd/system").is_dir() or "CONTAINERS_CONF" in os.environ:
        return
    configuration = folder / "containers.conf"
    configuration.write_text(
        "[engine]\n"
        'cgroup_manager = "cgroupfs"\n'
        'events_logger = "file"\n'
        f'runtime = "{"runc" if shutil.which("runc") else "crun"}"\n'
        "[containers]\n"
        'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
    )
    environment.setenv("CONTAINERS_CONF", str(configuration))


@dataclass(frozen=True)
class Container:
    """A container that was started, by its name; ``metrics_port`` is where it has its probes."""

    name: str
    metrics_port: int

    def state(self) -> dict[str, Any]:
        told: list[dict[str, Any]] = json.loads(podman("container", "inspect", self.name))
        return dict(told[0]["State"])

    def log(self) -> str:
        done = subprocess.run(["podman", "logs", self.name], capture_output=True, check=True)
        return (done.stdout + done.stderr).decode(errors="replace")

    def inside(self, *command: str, body: bytes = b"", key: str = "") -> str:
        """What a command prints that runs in the container, as restricted as the service."""
        return podman(
            "exec", "--interactive", "--env", f"KEY={key}", self.name, *command, body=body
        )

    def ask(self, address: str, body: bytes = b"", key: str = KEY) -> tuple[int, str]:
        """Status and text of the service's answer for ``port/path``; status 0 without one."""
        told = self.inside("python", "-c", _ASK, address, body=body, key=key)
        status, text = json.loads(told)
        return status, text

    def is_ready(self) -> bool:
        try:
            return self.ask(f"{self.metrics_port}/healthz/ready")[0] == 200
        except AssertionError:  # it ends, and nothing more can be started in it
            return False

    def ended(self) -> dict[str, Any]:
        """Its state, once it has ended of its own accord."""
        until(lambda: not self.state()["Running"])
        return self.state()

    def stop(self) -> dict[str, Any]:
        """SIGTERM, as a cluster stops it; its state afterwards."""
        podman("stop", "--time", str(WITHIN_SECONDS), self.name)
        return self.state()


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not so():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.2)


def of_the_cluster() -> tuple[list[str], str]:
    """Podman's options for what the manifests say of a pod; its memory limit apart."""
    manifest = yaml.safe_load((REPOSITORY / "k8s/base/deployment.yaml").read_text())
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    restricted, whose = container["securityContext"], pod["securityContext"]
    assert restricted["readOnlyRootFilesystem"]
    assert not restricted["allowPrivilegeEscalation"]
    (tmp,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "tmp"]
    options = [
        "--read-only",
        "--read-only-tmpfs=false",
        f"--tmpfs=/tmp:rw,nosuid,nodev,mode=1777,size={_bytes(tmp['sizeLimit'])}",
        *(f"--cap-drop={capability}" for capability in restricted["capabilities"]["drop"]),
        "--security-opt=no-new-privileges",
        f"--user={whose['runAsUser']}:{whose['runAsGroup']}",
        f"--env=MAMMOSEQ_WORKERS={container['resources']['requests']['cpu']}",
        f"--env-file={REPOSITORY / 'k8s/base/settings.env'}",
    ]
    return options, container["resources"]["limits"]["memory"]


@contextmanager
def running(
    image: str, *options: str, memory: str | None = None, **settings: object
) -> Iterator[Container]:
    """Start a container with no network, and as the manifests say but for podman's ``options``,
    the limit of ``memory`` (as Kubernetes writes it) and the service's ``settings``."""
    restrictions, limit = of_the_cluster()
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    chosen: dict[str, object] = {
        "device": "cpu", "api_keys": f"test:{digest}", "metrics_port": 9000
    } | settings  # fmt: skip
    variables = [f"--env=MAMMOSEQ_{name.upper()}={value}" for name, value in chosen.items()]
    most = _bytes(memory or limit)
    name = f"mammoseq-test-{secrets.token_hex(4)}"
    podman(
        "run", "--detach", f"--name={name}", *restrictions,
        f"--memory={most}", f"--memory-swap={most}",
        *([] if any(o.startswith("--network") for o in options) else ["--network=none"]),
        *variables, *options, image,
    )  # fmt: skip
    try:
        yield Container(name, int(str(chosen["metrics_port"])))
    finally:
        podman("rm", "--force", "--time", "0", name)


@contextmanager
def serving_in(image: str, *options: str, **settings: Any) -> Iterator[Container]:
    """The same, and wait until it is ready."""
    with running(image, *options, **settings) as container:
        deadline = time.monotonic() + WITHIN_SECONDS
        while not container.is_ready():
            assert container.state()["Running"], container.log()
            assert time.monotonic() < deadline, container.log()
        yield container


def _bytes(quantity: str) -> int:
    """Of a memory quantity of Kubernetes, such as ``512Mi``."""
    factors = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return int(quantity[:-2]) * factors[quantity[-2:]]
