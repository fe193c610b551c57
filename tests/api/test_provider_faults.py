"""An OpenID provider that answers what none should: the login fails, and nothing else does."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from joserfc.jwt import encode

from app.access.provider import Provider, TokenIssuer
from app.api import oidc, tokens
from app.api.oidc import Login
from app.api.tokens import Tokens
from app.problems import Refusal

BACK = "https://mammoseq.example.org/session/oidc/callback"


class Odd:
    """A provider on this machine; its ``description``, ``keys`` and ``token`` are sent as they
    are, with ``headers``, and if ``endless`` then a ``piece`` after each ``pause`` in seconds."""

    def __init__(self) -> None:
        odd = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(odd.keys if self.path == "/keys" else odd.description)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self._answer(odd.token)

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                for name, value in odd.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(body)
                    while odd.endless:
                        odd.sent += self.wfile.write(odd.piece)
                        time.sleep(odd.pause)
                except OSError:
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.headers = {"Content-Type": "application/json"}
        self.endless = False
        self.piece, self.pause = b" " * 100_000, 0.0
        self.sent = 0
        self.token = self.keys = b"{}"
        self.description = b""
        self.describe()

    def describe(self, **changed: Any) -> None:
        described = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/login",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        self.description = json.dumps(described | changed).encode()

    def login(self) -> Login:
        return Login(Provider(self.issuer, "mammoseq", "secret", None))


@pytest.fixture
def odd() -> Iterator[Odd]:
    provider = Odd()
    thread = threading.Thread(target=provider.server.serve_forever, args=(0.02,))
    thread.start()
    yield provider
    provider.endless = False
    provider.server.shutdown()
    thread.join()
    provider.server.server_close()


def refused(login: Login) -> str:
    """The code with which a login fails that gets as far as it can."""

    async def tried() -> None:
        _, kept = await login.begun(BACK)
        await login.ended({"state": kept["state"], "code": "any"}, kept)

    with pytest.raises(Refusal) as refusal:
        asyncio.run(tried())
    return refusal.value.code


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"5", b"<html>", b"{}", b"\xff"])
def test_what_is_no_description_is_refused(odd: Odd, body: bytes) -> None:
    odd.description = body
    assert refused(odd.login()) == "provider_unreachable"


@pytest.mark.parametrize(
    "changed",
    [
        {"authorization_endpoint": None},
        {"authorization_endpoint": ["https://id.example.org"]},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": "http://id.example.org/token"},
        {"token_endpoint": "https://"},
        {"jwks_uri": "http://169.254.169.254/latest"},
        {"userinfo_endpoint": "//id.example.org"},
        {"id_token_signing_alg_values_supported": 5},
        {"id_token_signing_alg_values_supported": [["RS256"]]},
    ],
    ids=str,
)
def test_endpoints_are_asked_only_over_https_and_none_is_when_one_is_not(
    odd: Odd, changed: dict[str, Any]
) -> None:
    odd.describe(**changed)
    with pytest.raises(Refusal, match="does not answer"):
        asyncio.run(odd.login().begun(BACK))


def test_a_wrong_description_is_asked_for_again(odd: Odd) -> None:
    login = odd.login()
    odd.describe(token_endpoint=None)
    assert refused(login) == "provider_unreachable"
    odd.describe()
    address, _ = asyncio.run(login.begun(BACK))
    assert address.startswith(f"{odd.issuer}/login?")


@pytest.mark.parametrize("token", [b"[]", b"null", b'"x"', b"{}", b'{"error": ["x"]}'])
def test_what_is_no_answer_with_a_token_is_refused(odd: Odd, token: bytes) -> None:
    odd.token = token
    assert refused(odd.login()) in ("provider_unreachable", "login_failed")


@pytest.mark.parametrize("keys", [b"[]", b"{}", b'{"keys": 5}', b'{"keys": [5]}'])
@pytest.mark.parametrize("token", [None, 5, {}, "", "a.b.c", "a.b.c.d.e", "bnVsbA.bnVsbA.c"])
def test_what_is_no_token_is_refused(odd: Odd, token: Any, keys: bytes) -> None:
    odd.keys = keys
    odd.token = json.dumps(
        {"access_token": "any", "token_type": "Bearer", "id_token": token}
    ).encode()
    assert refused(odd.login()) in ("provider_unreachable", "login_failed")


def test_an_endless_answer_is_not_kept(odd: Odd) -> None:
    odd.endless = True
    assert refused(odd.login()) == "provider_unreachable"
    assert odd.sent < 20_000_000  # what the sockets between them hold


def test_an_answer_that_does_not_end_in_time_is_given_up(
    odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "_SECONDS", 0.1)
    odd.headers["Content-Length"] = str(len(odd.description) + 1)
    odd.headers["Connection"] = "keep-alive"
    held = threading.Event()
    finish = odd.server.shutdown_request
    odd.server.shutdown_request = lambda request: (held.wait(30), finish(request))[1]
    assert refused(odd.login()) == "provider_unreachable"
    held.set()


def test_a_packed_answer_is_not_unpacked(odd: Odd) -> None:
    odd.headers["Content-Encoding"] = "gzip"
    odd.description = gzip.compress(odd.description + b" " * 10_000_000)
    assert refused(odd.login()) == "provider_unreachable"


def refused_token(odd: Odd) -> str:
    """The code with which an access token is refused."""
    with pytest.raises(Refusal) as refusal:
        asyncio.run(Tokens(TokenIssuer(odd.issuer, "mammoseq", None)).holder_of("e30.e30.e30"))
    return refusal.value.code


@pytest.mark.parametrize(
    "keys", [b"[]", b"{}", b'{"keys": 5}', b'{"keys": [5]}', b'{"keys": "x"}', b"[" * 100_000]
)
def test_access_tokens_are_refused_where_there_are_no_keys(odd: Odd, keys: bytes) -> None:
    odd.keys = keys
    assert refused_token(odd) == "provider_unreachable"


@pytest.mark.parametrize(
    "other",
    [
        {"kty": "EC", "crv": "brainpoolP256r1", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "RSA", "e": "AQAB"},
        {"kty": "LMS"},
        {},
    ],
    ids=str,
)
def test_keys_that_are_not_understood_are_passed_over(odd: Odd, other: dict[str, str]) -> None:
    """RFC 7517, 5: one for others, or a broken one, keeps no token of another key from its door."""
    key = RSAKey.generate_key(2048, {"kid": "ours"})
    keys = [{**other, "kid": "other"}, key.as_dict(private=False)]
    odd.keys = json.dumps({"keys": keys}).encode()
    claims = {"iss": odd.issuer, "aud": "mammoseq", "sub": "pacs", "exp": int(time.time()) + 60}
    token = encode({"alg": "RS256", "kid": "ours"}, claims, key)
    who = asyncio.run(Tokens(TokenIssuer(odd.issuer, "mammoseq", None)).holder_of(token))
    assert who.name == "pacs"


def test_endless_keys_are_not_kept(odd: Odd) -> None:
    odd.endless = True
    assert refused_token(odd) == "provider_unreachable"
    assert odd.sent < 20_000_000


def test_keys_that_do_not_come_in_time_are_given_up(
    odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_FETCH_SECONDS", 0.2)
    odd.endless, odd.piece, odd.pause = True, b" ", 0.05
    threading.Timer(5, setattr, (odd, "endless", False)).start()
    begun = time.monotonic()
    assert refused_token(odd) == "provider_unreachable"
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"preferred_username": "ana\u202e\r\n"}, "ana"),
        ({"preferred_username": "\u200b\n", "sub": "7"}, "7"),
        ({"preferred_username": " ", "email": "a@b.org", "email_verified": True}, "a@b.org"),
        ({"preferred_username": "x" * 1000}, "x" * 128),
    ],
    ids=repr,
)
def test_a_name_is_one_that_can_be_shown(claims: dict[str, Any], name: str) -> None:
    assert oidc._name({"sub": "0"} | claims) == name
