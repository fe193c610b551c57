"""A real Prometheus that scrapes a running service."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.real_parts import require
from tests.serving import free_port

_READY_SECONDS = 90


@contextmanager
def scraping(
    target: int, folder: Path, rules: Path | None = None, **labels: str
) -> Iterator[httpx.Client]:
    """Scrape the port ``target`` every second; a client for Prometheus' own address. ``labels`` are
    those that the Operator gives a target in a cluster."""
    port = free_port()
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)] if rules else [],
        "scrape_configs": [
            {
                "job_name": "mammoseq",
                "static_configs": [{"targets": [f"127.0.0.1:{target}"], "labels": labels}],
            }
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                require("prometheus"),
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'series'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        try:
            deadline = time.monotonic() + _READY_SECONDS
            while not _is_ready(client):
                assert process.poll() is None, (folder / "prometheus.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield client
        finally:
            process.terminate()
            process.wait(_READY_SECONDS)


def found(prometheus: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """The samples that an expression has now. Raises ``AssertionError`` for one that is none."""
    answer = prometheus.post("/api/v1/query", data={"query": expression}).json()
    assert answer["status"] == "success", f"{expression}: {answer['error']}"
    samples: list[dict[str, Any]] = answer["data"]["result"]
    return samples


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
