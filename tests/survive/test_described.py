"""Requests made of ``/openapi.json``, valid and invalid: nothing is answered that it does not
describe, and no request makes the service fail. Of an open service, and of one that asks who is
there: without a key, and with one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.access.keys import hash_of, new_key
from tests.provider import CLIENT
from tests.serving import REPOSITORY, Service, free_port, serving
from tests.survive.hooks import KEPT

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "allow_header_conformance",
)  # fmt: skip
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "10")
# What a run has no success of: a login needs a password or the provider, which is gone here
NO_SUCCESS = {"GET /session/oidc/callback"}
ONLY_WITH_A_PROVIDER = {"GET /session/oidc"}


@dataclass(frozen=True)
class Run:
    """What schemathesis printed, and what it sent: (method, path, kind of the body, status, kind of
    the answer) of each request."""

    status: int
    printed: str
    sent: list[tuple[str, str, str | None, int, str]]

    @property
    def cases(self) -> int:
        found = re.search(r"(\d+) generated", self.printed)
        assert found is not None, self.printed
        return int(found[1])

    def successes(self) -> set[str]:
        return {f"{method} {path}" for method, path, _, status, _ in self.sent if status < 400}


def run(description: str, folder: Path, *options: str, checks: tuple[str, ...] = CHECKS) -> Run:
    kept = folder / "kept"
    kept.touch()
    ended = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", description,
            "--checks", ",".join(checks), "--seed", "1", "--continue-on-failure", *options,
        ],
        cwd=folder,
        env=os.environ
        | {
            "SCHEMATHESIS_HOOKS": "tests.survive.hooks",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
            KEPT: str(kept),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )  # fmt: skip
    sent = [tuple(json.loads(line)) for line in kept.read_text().splitlines()]
    return Run(ended.returncode, ended.stdout, sent)


def described(service: Service) -> dict[str, dict[str, Any]]:
    """By method and path, as ``GET /state``."""
    paths = service.get("/openapi.json").json()["paths"]
    return {
        f"{method.upper()} {path}": operation
        for path, operations in paths.items()
        for method, operation in operations.items()
    }


@pytest.fixture(scope="module")
def guarded(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With keys, and a provider that does not answer."""
    key = new_key()
    settings = CLIENT | {"oidc_issuer": f"http://127.0.0.1:{free_port()}"}
    folder = tmp_path_factory.mktemp("guarded")
    keys = f"tests:{hash_of(key)}"
    with serving(bundle_folder, folder, access="login", api_keys=keys, **settings) as service:
        service.client.headers["Authorization"] = f"Bearer {key}"
        yield service


def test_every_answer_is_described(server: Service, tmp_path: Path) -> None:
    """``SCHEMATHESIS_EXAMPLES`` of each operation and phase, 10 unless set. It covers all of the
    description: each operation, with success, each kind of a body and of an answer."""
    address = f"{server.client.base_url}/openapi.json"
    seen = run(address, tmp_path, "--max-examples", EXAMPLES)
    assert seen.status == 0, seen.printed
    operations = described(server)
    assert re.findall(r"(?:Selected: \d+/|Tested: )(\d+)", seen.printed) == [
        str(len(operations)), str(len(operations)),
    ]  # fmt: skip
    assert seen.cases > 30 * len(operations)
    assert operations.keys() - seen.successes() == NO_SUCCESS | ONLY_WITH_A_PROVIDER
    read = [(f"{m} {p}", kind) for m, p, kind, status, _ in seen.sent if status == 200]
    for operation, about in operations.items():
        for kind in about.get("requestBody", {}).get("content", {}):
            assert (operation, kind) in read or operation == "POST /session", (operation, kind)
    answers = {(f"{m} {p}", kind) for m, p, _, status, kind in seen.sent if status == 200}
    for operation, about in operations.items():
        for kind in about["responses"].get("200", {}).get("content", {}):
            assert (operation, kind) in answers, (operation, kind)
    assert server.metric('mammoseq_problems_total{code="internal_error"}') == 0


@pytest.mark.long
def test_every_answer_to_somebody_with_a_key_and_to_others_is_described(
    guarded: Service, tmp_path: Path
) -> None:
    """``ignored_auth`` asks again without the key, and with a wrong one."""
    key = f"Authorization:{guarded.client.headers['Authorization']}"
    seen = run(
        f"{guarded.client.base_url}/openapi.json",
        tmp_path,
        "--phases", "fuzzing", "--max-examples", "5", "--header", key,
        checks=(*CHECKS, "ignored_auth"),
    )  # fmt: skip
    assert seen.status == 0, seen.printed
    assert {status for *_, status, _ in seen.sent} >= {200, 303, 401, 404, 422}
    assert described(guarded).keys() - seen.successes() <= NO_SUCCESS | {"POST /session"}
    assert guarded.metric('mammoseq_problems_total{code="internal_error"}') == 0


def test_an_answer_that_is_not_described_is_found(server: Service, tmp_path: Path) -> None:
    """So that the tests above can fail."""
    description = server.get("/openapi.json").json()
    del description["paths"]["/state"]["get"]["responses"]["200"]
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(description))
    seen = run(
        str(file), tmp_path,
        "--url", str(server.client.base_url), "--include-path", "/state", "--max-examples", "3",
    )  # fmt: skip
    assert seen.status == 1, seen.printed
    assert "Undocumented" in seen.printed
