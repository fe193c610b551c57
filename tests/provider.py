"""A real OpenID provider, npm's ``oidc-provider``, as the tests of the login meet it."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import httpx
import pytest

from tests.real_parts import is_required, require
from tests.serving import REPOSITORY, free_port

FOLDER = REPOSITORY / "tests" / "oidc"
CLIENT = {"oidc_client_id": "mammoseq", "oidc_client_secret": "SECRET-of-the-client"}
_READY_SECONDS = 90


class Provider:
    """A running ``tests/oidc/provider.mjs``. Its issuer is another site than 127.0.0.1."""

    def __init__(self, process: subprocess.Popen[bytes], issuer: str) -> None:
        self.process = process
        self.issuer = issuer

    def settings(self) -> dict[str, str]:
        """Those with which the service logs in there."""
        return CLIENT | {"oidc_issuer": self.issuer}

    def spoil(self, **claims: object) -> None:
        """Have the next token changed."""
        httpx.put(f"{self.issuer}/spoil", json=claims, trust_env=False).raise_for_status()

    def publish_other_key(self) -> None:
        """From now on the key "other" is the provider's, too."""
        httpx.put(f"{self.issuer}/publish", trust_env=False).raise_for_status()

    def token(self, resource: str, scope: str = "predict read") -> str:
        """An access token for the machine "pacs", by the grant client_credentials."""
        answer = httpx.post(
            f"{self.issuer}/token",
            data={"grant_type": "client_credentials", "resource": resource, "scope": scope},
            auth=("pacs", "SECRET-of-the-pacs"),
            trust_env=False,
        )
        answer.raise_for_status()
        return str(answer.json()["access_token"])


@contextmanager
def running_provider(folder: Path) -> Iterator[Provider]:
    """Start one, with its packages installed; ``folder`` gets what it prints."""
    node, npm = require("node"), require("npm")
    if not (FOLDER / "node_modules" / "oidc-provider").is_dir():
        installed = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if installed.returncode != 0:
            message = f"the packages of tests/oidc cannot be installed:\n{installed.stderr}"
            if is_required():
                pytest.fail(message)
            pytest.skip(message)
    port = free_port()
    log = folder / "provider.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [node, "provider.mjs", str(port)], cwd=FOLDER, stdout=output, stderr=output
        )
    provider = Provider(process, f"http://localhost:{port}")
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while "listening" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield provider
    finally:
        process.kill()
        process.wait()


def at_provider(client: httpx.Client, page: httpx.Response, user: str) -> httpx.Response:
    """From the provider's first page to where it sends the browser: the redirect to the service,
    not followed."""
    for answers in ({"login": user, "password": "any"}, {}):
        assert page.status_code == 200, page.text
        (action,) = re.findall(r'<form[^>]* action="([^"]+)"', page.text)
        (prompt,) = re.findall(r'name="prompt" value="(\w+)"', page.text)
        page = client.post(page.url.join(unescape(action)), data={"prompt": prompt, **answers})
        while page.is_redirect and "/session/oidc/callback" not in page.headers["location"]:
            page = client.get(page.url.join(page.headers["location"]))
        if page.is_redirect:
            return page
    raise AssertionError(page.text)
