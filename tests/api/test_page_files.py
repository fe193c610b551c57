"""What a browser gets: the page and its files, and headers that keep everything else out."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from app.api.protect import HEADERS
from tests.api.test_load import answer_on, connected
from tests.api.test_refusals import refused
from tests.pictures import breast, dicom
from tests.serving import Service

WEB = Path(__file__).resolve().parents[2] / "app" / "web"


def test_page_is_at_the_root(server: Service) -> None:
    answer = server.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content == (WEB / "index.html").read_bytes()


def test_every_file_that_the_page_names_is_there(server: Service) -> None:
    """From the page on: what it links, and what that imports."""
    found: dict[str, str] = {}
    waiting = ["/"]
    while waiting:
        address = waiting.pop()
        answer = server.get(address)
        assert answer.status_code == 200, address
        found[address] = answer.text
        named = re.findall(r'(?:href|src)="(/web/[^"]+)"', answer.text)
        imported = re.findall(r'(?:from|import) "(\.[^"]+)"', answer.text)
        named += [urljoin(address, path) for path in imported]
        waiting += [name for name in set(named) if name not in found and name not in waiting]
    assert {"/web/style.css", "/web/main.js", "/web/strings/en.js"} <= set(found)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("main.js", "text/javascript; charset=utf-8"),
        ("strings/en.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("examples/series/series.json", "application/json"),
        ("examples/series/2021-03-01.png", "image/png"),
    ],
)
def test_file_has_the_type_that_browsers_insist_on(server: Service, path: str, kind: str) -> None:
    answer = server.get(f"/web/{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind


def test_file_is_sent_again_only_if_it_has_changed(server: Service) -> None:
    first = server.get("/web/style.css")
    assert first.headers["cache-control"] == "no-cache"
    again = server.get("/web/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"
    assert server.get("/web/style.css", headers={"If-None-Match": '"x"'}).status_code == 200


def test_head_of_a_file_is_answered_without_it(server: Service) -> None:
    answer = server.client.head("/web/style.css")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/web/", "/web/no-such-file.js", "/web/strings", "/web/../settings.py",
        "/web/strings/../../settings.py", "/web/%2e%2e/settings.py", "/web/..%2fsettings.py",
        "/web/%2e%2e%2f%2e%2e%2fpyproject.toml", "/web//etc/passwd", "/web/%2fetc%2fpasswd",
        "/web/..%5csettings.py", "/web/main.js%00.css", "/web/" + "x" * 5000,
    ],
)  # fmt: skip
def test_nothing_outside_of_the_folder_is_served(server: Service, path: str) -> None:
    with connected(server) as connection:  # a client of its own would tidy the path
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status, problem = answer_on(connection)
    assert (status, problem["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", "/web/main.js"])
def test_files_cannot_be_written(server: Service, path: str) -> None:
    answer = server.post(path, content=b"x")
    refused(answer, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


# headers of every answer


def protected(answer: httpx.Response) -> None:
    for name, value in HEADERS.items():
        assert answer.headers.get_list(name) == [value], name
    assert len(answer.headers.get_list("cache-control")) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/web/main.js", 200),
        ("GET", "/web/none.js", 404),
        ("GET", "/healthz/ready", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/no/such/address", 404),
        ("PUT", "/predict", 405),
        ("POST", "/predict", 400),
        ("POST", "/predict/series", 400),
    ],
)
def test_every_answer_has_the_headers(server: Service, method: str, path: str, status: int) -> None:
    answer = server.client.request(method, path)
    assert answer.status_code == status
    protected(answer)


@pytest.mark.parametrize("accept", ["application/json", "application/dicom", "text/plain"])
def test_predictions_have_the_headers_in_every_form(server: Service, accept: str) -> None:
    answer = server.post("/predict", content=dicom(breast()), headers={"Accept": accept})
    protected(answer)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/web/none.js", "/nowhere"])
def test_what_is_no_file_is_kept_nowhere(server: Service, path: str) -> None:
    assert server.get(path).headers["cache-control"] == "no-store"
