"""The container image: built as a site builds it, run as the cluster runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from packaging.requirements import Requirement

from tests.image.containers import (
    REPOSITORY,
    Container,
    configure,
    podman,
    running,
    serving_in,
    until,
)
from tests.real_parts import is_required, require
from tests.serving import Service, free_port
from tests.survive.load import lasting, learned, singles, under_load, wait_for_answers

QUESTION = singles(1)[0]
STORE = REPOSITORY / "model_store"
COMPILERS = {"cc", "gcc", "g++", "clang", "ld", "as", "make", "tcc", "rustc", "go"}
INSTALLERS = {"pip", "pip3", "ensurepip", "setuptools", "uv", "apt", "apt-get"}
FRAMEWORKS = {"tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx", "torch", "jax"}
STARTED = "Application startup complete"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of this source; ``MAMMOSEQ_IMAGE`` names one that is already there."""
    for program in ("buildah", "podman", "mmdebstrap"):
        require(program)
    if os.geteuid() != 0:
        (pytest.fail if is_required() else pytest.skip)("limits of memory need root")
    with pytest.MonkeyPatch.context() as environment:
        configure(environment, tmp_path_factory.mktemp("podman"))
        yield os.environ.get("MAMMOSEQ_IMAGE") or built("localhost/mammoseq:test")


def built(name: str) -> str:
    done = subprocess.run(
        [REPOSITORY / "k8s/build_image.sh"],
        env=os.environ | {"IMAGE": name, "PYTHON": sys.executable},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return name


@pytest.fixture(scope="module")
def told(image: str) -> dict[str, Any]:
    """What the image says of itself."""
    return dict(json.loads(podman("image", "inspect", image))[0])


@pytest.fixture(scope="module")
def root(image: str) -> Iterator[Path]:
    """The image's files."""
    yield Path(podman("image", "mount", image).strip())
    podman("image", "unmount", image)


@pytest.fixture(scope="module")
def pod(image: str) -> Iterator[Container]:
    """The service with the settings of the manifests, shared by tests that only ask it things."""
    with serving_in(image) as container:
        yield container


def files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            yield path, path.lstat()


def of_commit(commit: str, what: str) -> str:
    git = ["git", "show", "--no-patch", f"--format={what}", commit]
    return subprocess.check_output(git, cwd=REPOSITORY, text=True).strip()


def test_user_is_a_number_and_not_root(told: dict[str, Any]) -> None:
    assert re.fullmatch("[1-9][0-9]*:[1-9][0-9]*", told["Config"]["User"])


def test_labels_say_what_it_is_and_where_it_comes_from(told: dict[str, Any]) -> None:
    labels = told["Labels"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    oci = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in labels.items()
        if name.startswith("org.opencontainers.image.")
    }
    assert all(oci.values()), "a label without a value"
    assert oci.keys() >= {"title", "description", "base.name"}
    assert (oci["version"], oci["licenses"]) == (project["version"], project["license"])
    revision = oci["revision"].removesuffix("-modified")
    if "MAMMOSEQ_IMAGE" not in os.environ:
        assert revision == of_commit("HEAD", "%H")
    created = np.datetime64(oci["created"].removesuffix("Z"))
    assert created == np.datetime64(int(of_commit(revision, "%ct")), "s")
    assert told["Created"] == oci["created"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", oci["base.digest"])
    assert labels["mammoseq.variant"] == "cpu"
    assert "not a medical device" in labels["mammoseq.intended-use"]


def test_nothing_in_it_compiles_or_installs(root: Path) -> None:
    programs = {
        path.name
        for path, status in files(root)
        if status.st_mode & 0o111 and path.parent.name in ("bin", "sbin")
    }
    assert not programs & (COMPILERS | INSTALLERS)
    modules = {path.name for path in root.glob("opt/venv/lib/python3*/site-packages/*")}
    modules |= {path.name for path in root.glob("usr/lib/python3*/**/ensurepip")}
    assert not modules & (INSTALLERS | FRAMEWORKS)


def test_cpu_image_leaves_out_what_only_a_gpu_needs(root: Path) -> None:
    libraries = {path.name for path in root.glob("opt/venv/lib/**/libonnxruntime*")}
    assert not [name for name in libraries if "cuda" in name or "tensorrt" in name]
    assert any(name.startswith("libonnxruntime.so") for name in libraries)


def test_no_file_is_its_user_s_or_makes_anybody_else_of_them(root: Path) -> None:
    for path, status in files(root):
        assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID), path
        if {"app", "opt"} & {path.relative_to(root).parts[0]}:
            assert (status.st_uid, status.st_gid) == (0, 0), path
            assert stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o022, path


def test_every_module_is_compiled_for_a_root_that_cannot_be_written(root: Path) -> None:
    """And by its content (PEP 552): times of files are the same for all."""
    folders = [root / "app/app", *root.glob("opt/venv/lib/python3*/site-packages")]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(sources) > 1000
    for source in sources:
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-3??.pyc")
        assert compiled.read_bytes()[4] == 0b01, source  # hash-based, not checked


def test_sbom_names_every_package_with_its_version(image: str, tmp_path: Path) -> None:
    folder = Path(sys.executable).parent
    if not (folder / "syft").exists():
        require("syft")
    file = tmp_path / "sbom.json"
    subprocess.run(
        [REPOSITORY / "k8s/write_sbom.sh", image, file],
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        check=True,
    )
    sbom = json.loads(file.read_text())
    kinds: dict[str, dict[str, str]] = {"pypi": {}, "deb": {}}
    for package in sbom["packages"]:
        for reference in package.get("externalRefs", []):
            kind = reference["referenceLocator"].removeprefix("pkg:").split("/")[0]
            if reference["referenceType"] == "purl" and kind in kinds:
                name = package["name"].lower().replace("_", "-").replace(".", "-")
                kinds[kind][name] = package["versionInfo"]
    assert kinds["pypi"] == required(REPOSITORY / "requirements/serve.txt")
    assert not kinds["pypi"].keys() & FRAMEWORKS
    assert {"libc6", "openssl", "libssl3"} & kinds["deb"].keys()


def required(file: Path) -> dict[str, str]:
    """Name and version of each package that a file of hashed requirements has for this Python."""
    lines = (line.partition("\\")[0] for line in file.read_text().splitlines() if "==" in line)
    wanted = (Requirement(line) for line in lines if not line.lstrip().startswith("#"))
    return {
        one.name.replace(".", "-"): str(one.specifier).removeprefix("==")
        for one in wanted
        if one.marker is None or one.marker.evaluate()
    }


def test_process_has_no_capability_and_cannot_get_one(pod: Container) -> None:
    lines = pod.inside("cat", "/proc/1/status").splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2", "no filter of system calls"
    assert set(status["Uid"].split() + status["Gid"].split()) == {"10001"}


@pytest.mark.parametrize("folder", ["/", "/app", "/app/model_store", "/opt/venv", "/etc", "/var"])
def test_root_is_read_only(pod: Container, folder: str) -> None:
    probe = f"try: open({folder!r} + '/probe', 'w')\nexcept OSError as error: print(error.errno)"
    assert int(pod.inside("python", "-c", probe)) in (13, 30)  # EACCES, EROFS


def test_answers_as_outside_the_image(pod: Container, server: Service) -> None:
    outside = server.post(QUESTION.path, content=QUESTION.body)
    status, text = pod.ask(f"8000{QUESTION.path}", QUESTION.body)
    assert (status, lasting(text.encode())) == (200, lasting(outside.content))


def test_nobody_comes_in_without_a_key_but_to_the_probes(pod: Container) -> None:
    assert pod.ask("8000/v1/models", key="")[0] == 401
    assert pod.ask(f"8000{QUESTION.path}", QUESTION.body, key="")[0] == 401
    assert pod.ask("9000/healthz/live", key="")[0] == 200
    assert pod.ask("8000/v1/models")[0] == 200


def test_leaves_no_file_behind(pod: Container) -> None:
    assert pod.ask(f"8000{QUESTION.path}", QUESTION.body)[0] == 200
    assert pod.inside("ls", "-A", "/tmp") == ""


def test_tries_no_connection_to_anywhere(pod: Container) -> None:
    """It has no network; the kernel counts who tries for one all the same."""
    assert pod.ask(f"8000{QUESTION.path}", QUESTION.body)[0] == 200
    assert pod.log().count(STARTED) == 1
    assert without_a_route(pod) == 0
    probe = "import socket\ntry: socket.create_connection(('192.0.2.1', 9))\nexcept OSError: pass"
    pod.inside("python", "-c", probe)
    assert without_a_route(pod) == 1, "the kernel does not count"


def without_a_route(container: Container) -> int:
    """Packets and connections that had nowhere to go (``/proc/net/snmp``)."""
    names, values = (
        line.split() for line in container.inside("cat", "/proc/net/snmp").splitlines()[:2]
    )
    return int(values[names.index("OutNoRoutes")])


def test_sigterm_ends_it_with_status_0(image: str) -> None:
    with serving_in(image) as container:
        state = container.stop()
        assert state["ExitCode"] == 0, container.log()


def test_store_on_a_volume_takes_the_place_of_the_one_in_the_image(
    image: str, server: Service
) -> None:
    """As ``k8s/components/model-volume`` has it."""
    volume = f"--volume={STORE}:/models:ro"
    with serving_in(image, volume, model_store="/models") as container:
        outside = server.post(QUESTION.path, content=QUESTION.body)
        status, text = container.ask(f"8000{QUESTION.path}", QUESTION.body)
        assert (status, lasting(text.encode())) == (200, lasting(outside.content))
        assert '"model_store":"/models"' in container.log().replace(": ", ":")


def test_cpu_image_refuses_to_be_taken_for_one_with_cuda(image: str) -> None:
    with running(image, device="cuda") as container:
        assert container.ended()["ExitCode"] == 1
        assert "refused to start" in container.log()
        assert "Traceback" not in container.log()


def kills() -> int:
    """How many processes the kernel has killed for want of memory (proc_vmstat(5)). Not every
    version of podman says ``OOMKilled``."""
    (line,) = re.findall("^oom_kill (.*)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    return int(line)


def test_limit_of_memory_that_is_too_small_ends_it(image: str) -> None:
    before = kills()
    with running(image, memory="64Mi") as container:
        assert container.ended()["ExitCode"] == 128 + signal.SIGKILL, container.log()
    assert kills() > before


def test_out_of_memory_kill_takes_one_process_and_the_others_answer(image: str) -> None:
    """The kernel kills the process that has most, which is the one with a picture of 400 million
    pixels, let in here by a limit that nobody should set."""
    port = free_port()
    with serving_in(
        image, "--network=host", memory="512Mi", host="127.0.0.1", port=port,
        metrics_port=free_port(), access="open", processes=2, workers=1, max_pixels=4 * 10**8,
    ) as container:  # fmt: skip
        until(lambda: container.log().count(STARTED) == 2)
        questions = learned(port, singles(3))
        with under_load(port, questions) as load:
            wait_for_answers(load, 20)
            assert not load.failed
            before = kills()
            assert container.ask(f"{port}/predict", bomb())[0] == 0, "answered"
            assert kills() > before
            until(lambda: container.log().count(STARTED) == 3)
            failed = len(load.failed)
            wait_for_answers(load, 20)
            assert not load.wrong
            assert len(load.failed) == failed <= 4, "of one process' clients one request each"
        assert container.state()["Running"]
        assert container.stop()["ExitCode"] == 0


def bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels, all of them black."""
    done, data = cv2.imencode(".png", np.zeros((20_000, 20_000), np.uint8))
    assert done
    return data.tobytes()
