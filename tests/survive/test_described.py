"""Requests made of ``/openapi.json``, valid and invalid: nothing is answered that it does not
describe, and no request makes the service fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.serving import REPOSITORY, Service

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "allow_header_conformance",
)  # fmt: skip


def test_every_answer_is_described(server: Service, tmp_path: Path) -> None:
    """``SCHEMATHESIS_EXAMPLES`` of each operation and phase, 10 unless set."""
    examples = os.environ.get("SCHEMATHESIS_EXAMPLES", "10")
    ended = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run",
            f"{server.client.base_url}/openapi.json", "--checks", ",".join(CHECKS),
            "--max-examples", examples, "--seed", "1", "--continue-on-failure",
        ],
        cwd=tmp_path,
        env=os.environ
        | {
            "SCHEMATHESIS_HOOKS": "tests.survive.hooks",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    assert server.metric('mammoseq_requests_total{route="/predict",status="200"}') > 0
    inferred = "/v2/models/{name}/infer"
    assert server.metric(f'mammoseq_requests_total{{route="{inferred}",status="200"}}') > 0
    assert server.metric('mammoseq_problems_total{code="internal_error"}') == 0
