"""Who may come in: with a session, with a key, and nobody else."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access.keys import hash_of, new_key
from app.access.passwords import LONGEST, hashed
from app.access.sessions import Sessions
from app.access.who import Who
from tests.pictures import breast, png
from tests.serving import Service, refused_to_start, serving

IMAGE = png(breast())
PASSWORD = "correct hörse battery"
SECRET = "SECRET-of-sessions-" + "s" * 32
OLD_KEY, NEW_KEY = new_key(), new_key()
USERS = {
    name: hashed(password)
    for name, password in {
        "ana": PASSWORD,
        "jürgen": "密码密码密码密码 ü",
        "long": "x" * LONGEST,
        "leaver": PASSWORD,
        "forgetful": PASSWORD,
    }.items()
}
HERE = {"Sec-Fetch-Site": "same-origin"}


def listed(entries: dict[str, str]) -> str:
    return "".join(f"{name}:{value}\n" for name, value in entries.items())


@dataclass
class Guarded:
    service: Service
    users: Path
    keys: Path

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.service.client.base_url, timeout=60, trust_env=False, headers=headers
        )

    def logged_in(self, user: str = "ana", password: str = PASSWORD) -> httpx.Client:
        """The page of somebody who has logged in: sends the cookie and the token."""
        client = self.client(**HERE)
        answer = client.post("/session", json={"user": user, "password": password})
        assert answer.status_code == 200, answer.text
        client.headers["X-CSRF-Token"] = answer.json()["csrf"]
        return client


@pytest.fixture(scope="module")
def guarded(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    users, keys = folder / "users", folder / "keys"
    users.write_text(listed(USERS))
    keys.write_text(listed({"pacs": hash_of(OLD_KEY)}))
    with serving(
        bundle_folder,
        folder,
        access="login",
        users_file=users,
        api_keys_file=keys,
        session_secret=SECRET,
    ) as service:
        yield Guarded(service, users, keys)


def code(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["code"])


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# nobody


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predict"),
        ("POST", "/predict/series"),
        ("GET", "/v1/models"),
        ("GET", "/no/such/address"),
        ("GET", "/v2"),
        ("GET", "/v2/models/mammoseq-rsna/ready"),
        ("POST", "/v2/models/mammoseq-rsna/infer"),
        ("GET", "/webcam"),
        ("GET", "/sessions"),
        ("OPTIONS", "/predict"),
    ],
)
def test_without_session_or_key_nothing_is_answered(
    guarded: Guarded, method: str, path: str
) -> None:
    response = guarded.service.client.request(method, path, content=b"")
    assert response.status_code == 401
    assert code(response) == "login_required"
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    [
        "/", "/session", "/healthz/live", "/healthz/ready", "/v2/health/live", "/v2/health/ready",
        "/metrics", "/openapi.json", "/web/none",
    ],
)  # fmt: skip
def test_the_page_the_way_in_and_what_machines_watch_are_public(
    guarded: Guarded, path: str
) -> None:
    assert guarded.service.get(path).status_code == (404 if path == "/web/none" else 200)


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer wrong",
        "Bearer",
        f"Bearer {'x' * 10_000}",
        f"Bearer {hash_of(OLD_KEY)}",
        f"Basic {OLD_KEY}",
        OLD_KEY,
        "Bearer é",
    ],
    ids=["wrong", "empty", "long", "hash of a key", "basic", "bare key", "not ascii"],
)
def test_what_is_no_key_is_refused(guarded: Guarded, authorization: str) -> None:
    headers = {"Authorization": authorization.encode("latin-1")}
    response = guarded.service.client.get("/v1/models", headers=headers)
    assert code(response) == "login_required"
    assert guarded.logged_in().get("/v1/models", headers=headers).status_code == 401


def test_a_refusal_comes_before_the_body_is_read(guarded: Guarded) -> None:
    address = (guarded.service.client.base_url.host, guarded.service.client.base_url.port or 80)
    head = (
        "POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        "Content-Length: 200000000\r\n\r\n"
    )
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")  # and not 100


# keys


def test_a_key_opens_every_door(guarded: Guarded) -> None:
    client = guarded.client(**bearer(OLD_KEY))
    assert client.get("/v1/models").status_code == 200
    assert client.post("/predict", content=IMAGE).status_code == 200
    assert client.delete("/v1/models").status_code == 405
    lower = guarded.client(Authorization=f"bearer {OLD_KEY}")  # RFC 9110 11.1
    assert lower.get("/v1/models").status_code == 200


def test_a_key_opens_only_the_doors_that_it_is_good_for(guarded: Guarded) -> None:
    keys = {scope: new_key() for scope in ("predict", "read")}
    before = guarded.keys.read_text()
    guarded.keys.write_text(
        before + "".join(f"{s}:{hash_of(key)}:{s}\n" for s, key in keys.items())
    )
    answers = {
        (scope, method): guarded.service.client.request(
            method, path, content=IMAGE, headers=bearer(key)
        )
        for scope, key in keys.items()
        for method, path in (("POST", "/predict"), ("GET", "/state"), ("GET", "/v1/models"))
    }
    guarded.keys.write_text(before)
    assert {key: answer.status_code for key, answer in answers.items()} == {
        ("predict", "POST"): 200, ("predict", "GET"): 403,
        ("read", "POST"): 403, ("read", "GET"): 200,
    }  # fmt: skip
    assert code(answers["read", "POST"]) == "forbidden"
    assert "predict" in answers["read", "POST"].json()["detail"]


def test_keys_are_changed_over_without_a_restart(guarded: Guarded) -> None:
    def known() -> list[bool]:
        return [
            guarded.service.get("/v1/models", headers=bearer(key)).status_code == 200
            for key in (OLD_KEY, NEW_KEY)
        ]

    old, new = (f"pacs:{hash_of(key)}\n" for key in (OLD_KEY, NEW_KEY))
    assert known() == [True, False]
    guarded.keys.write_text(old + new)
    assert known() == [True, True]
    guarded.keys.write_text(new)
    assert known() == [False, True]
    guarded.keys.write_text(old)
    assert known() == [True, False]


# sessions


def test_whoever_logs_in_may_read_and_predict_until_logging_out(guarded: Guarded) -> None:
    before = guarded.service.get("/session").json()
    assert before == {
        "access": "login", "user": None, "csrf": None, "password": True, "oidc": False,
        "https": True,
    }  # fmt: skip
    client = guarded.logged_in()
    now = client.get("/session")
    assert now.json() == before | {"user": "ana", "csrf": client.headers["X-CSRF-Token"]}
    assert now.headers["cache-control"] == "no-store"
    assert client.get("/v1/models").status_code == 200
    assert client.post("/predict", content=IMAGE).status_code == 200
    assert client.delete("/session").json() == before
    assert not client.cookies
    assert client.get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("user", "password"), [("jürgen", "密码密码密码密码 ü"), ("long", "x" * LONGEST)]
)
def test_names_and_passwords_may_hold_any_character_and_be_long(
    guarded: Guarded, user: str, password: str
) -> None:
    client = guarded.logged_in(user, password)
    assert client.get("/session").json()["user"] == user


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"user": "ana", "password": "x" * (LONGEST + 1)}, "invalid_request"),
        ({"user": "ana", "password": "é" * (LONGEST // 2 + 1)}, "invalid_request"),
        ({"user": "x" * 65, "password": PASSWORD}, "invalid_request"),
        ({"user": "ana", "password": "x" * 10_000}, "body_too_large"),
        ({"user": "ana"}, "invalid_json"),
        ({"user": "ana", "password": None}, "invalid_json"),
        ([], "invalid_json"),
    ],
)
def test_what_is_no_login_is_refused_without_being_tried(
    guarded: Guarded, body: Any, expected: str
) -> None:
    assert code(guarded.client().post("/session", json=body)) == expected


def test_a_form_of_another_site_cannot_log_anybody_in(guarded: Guarded) -> None:
    credentials = {"user": "ana", "password": PASSWORD}
    assert code(guarded.client().post("/session", data=credentials)) == "invalid_json"
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        response = guarded.client(**headers).post("/session", json=credentials)
        assert code(response) == "csrf_failed"
        assert "set-cookie" not in response.headers


def test_a_wrong_password_and_an_unknown_user_are_answered_alike(guarded: Guarded) -> None:
    answers = []
    for number, user in enumerate(("forgetful", "nobody", "")):
        response = guarded.client(**{"X-Request-ID": "same"}).post(
            "/session", json={"user": user, "password": f"wrong password {number}"}
        )
        assert response.status_code == 401
        assert "set-cookie" not in response.headers
        answers.append(response.json())
    assert answers[0]["code"] == "login_failed"
    assert answers[1:] == answers[:1] * 2


def test_a_user_who_is_removed_or_has_a_new_password_is_out_at_once(guarded: Guarded) -> None:
    client = guarded.logged_in("leaver")
    stays = guarded.logged_in()
    everybody = listed(USERS)
    guarded.users.write_text(listed(USERS | {"leaver": hashed(PASSWORD + " 2")}))
    assert code(client.get("/v1/models")) == "login_required"
    guarded.users.write_text(listed({k: v for k, v in USERS.items() if k != "leaver"}))
    assert code(client.get("/v1/models")) == "login_required"
    assert client.get("/session").json()["user"] is None
    assert code(client.post("/session", json={"user": "leaver", "password": PASSWORD})) == (
        "login_failed"
    )
    assert stays.get("/v1/models").status_code == 200
    guarded.users.write_text(everybody)


def sealed(guarded: Guarded, cookie: str) -> httpx.Response:
    """The answer to whoever has such a cookie."""
    return guarded.service.get("/v1/models", headers={"Cookie": f"mammoseq={cookie}".encode()})


def test_a_session_that_was_changed_or_is_too_old_or_of_others_is_none(guarded: Guarded) -> None:
    client = guarded.logged_in()
    cookie = client.cookies["mammoseq"]
    assert sealed(guarded, cookie).status_code == 200
    payload, _, rest = cookie.partition(".")
    ours = Sessions(SECRET, hours=8)
    old = Sessions(SECRET, hours=8, clock=lambda: time.time() - 9 * 3600)
    others = [
        f"{payload[:-1]}{'A' if payload[-1] != 'A' else 'B'}.{rest}",
        f"{payload}.{rest[:-5]}",
        payload,
        old.begun(Who("ana", "user"), USERS["ana"]),
        Sessions("t" * 32, 8).begun(Who("ana", "user"), USERS["ana"]),
        ours.begun(Who("ana", "user"), "another hash"),
        ours.begun(Who("nobody", "user")),
        ours.begun(Who("ana", "oidc")),  # there is no provider
        ours.begun(Who("first", "once")),  # nor a one-time password
        ours.begun(Who("pacs", "key")),
        "é" * 100,
        "x" * 5000,
    ]
    for other in others:
        assert code(sealed(guarded, other)) == "login_required"
    assert sealed(guarded, ours.begun(Who("ana", "user"), USERS["ana"])).status_code == 200


def test_the_cookie_is_kept_from_scripts_other_sites_and_plain_http(guarded: Guarded) -> None:
    def attributes(**headers: str) -> list[str]:
        answer = guarded.client(**headers).post(
            "/session", json={"user": "ana", "password": PASSWORD}
        )
        name, *rest = answer.headers["set-cookie"].split("; ")
        assert rest[:2] == ["HttpOnly", "Max-Age=28800"]
        return [name.partition("=")[0], *rest[2:]]

    strict = ["Path=/", "SameSite=strict"]
    assert attributes() == ["mammoseq", *strict]
    assert attributes(Host="localhost:8000") == ["mammoseq", *strict]
    assert attributes(Host="[::1]:8000") == ["mammoseq", *strict]
    for host in ("mammoseq.example.org", "10.0.0.5:8000", "localhost.example.org"):
        assert attributes(Host=host) == ["__Host-mammoseq", *strict, "Secure"]
    # Nobody has said that this client is a proxy
    assert attributes(**{"X-Forwarded-Proto": "https"})[0] == "mammoseq"


def test_the_page_is_told_where_a_login_cannot_work(guarded: Guarded) -> None:
    def works(**headers: str) -> bool:
        return bool(guarded.client(**headers).get("/session").json()["https"])

    assert not works(Host="mammoseq.example.org")
    assert works(Host="mammoseq.example.org", **HERE)  # sent over https only
    assert works(Host="127.0.0.1")


# requests that another site makes a browser send


@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRF-Token": None},
        {"X-CSRF-Token": "wrong"},
        {"X-CSRF-Token": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": None, "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": None, "Origin": "null"},
    ],
    ids=str,
)
def test_what_does_not_come_from_the_page_is_refused(
    guarded: Guarded, headers: dict[str, str | None]
) -> None:
    client = guarded.logged_in()
    for name, value in headers.items():
        if value is None:
            del client.headers[name]
        else:
            client.headers[name] = value
    for response in (client.post("/predict", content=IMAGE), client.delete("/session")):
        assert response.status_code == 403
        assert code(response) == "csrf_failed"
    assert client.get("/v1/models").status_code == 200  # changes nothing


def test_the_token_of_another_session_does_not_do(guarded: Guarded) -> None:
    client = guarded.logged_in()
    client.headers["X-CSRF-Token"] = guarded.logged_in().headers["X-CSRF-Token"]
    assert code(client.post("/predict", content=IMAGE)) == "csrf_failed"


def test_a_browser_without_fetch_metadata_is_believed_by_its_origin(guarded: Guarded) -> None:
    client = guarded.logged_in()
    del client.headers["Sec-Fetch-Site"]
    client.headers["Origin"] = str(client.base_url).rstrip("/")
    assert client.post("/predict", content=IMAGE).status_code == 200


def test_a_key_needs_no_token(guarded: Guarded) -> None:
    client = guarded.client(**bearer(OLD_KEY), **{"Sec-Fetch-Site": "cross-site"})
    assert client.post("/predict", content=IMAGE).status_code == 200


# failures


def test_five_failures_lock_the_user_out_even_with_the_right_password(
    bundle_folder: Path, tmp_path: Path
) -> None:
    users = listed({"ana": USERS["ana"], "ben": USERS["ana"]})
    with serving(bundle_folder, tmp_path, access="login", users=users) as service:

        def tried(user: str, password: str) -> httpx.Response:
            return service.post("/session", json={"user": user, "password": password})

        with ThreadPoolExecutor(10) as pool:  # no faster by trying all at once
            answers = list(pool.map(lambda n: tried("ana", f"wrong {n}"), range(10)))
        assert sorted(map(code, answers)) == ["login_failed"] * 5 + ["login_locked"] * 5
        locked = tried("ana", PASSWORD)
        assert locked.status_code == 429
        assert code(locked) == "login_locked"
        assert 0 < int(locked.headers["retry-after"]) <= 900
        assert tried("ben", PASSWORD).status_code == 200
        assert service.metric('mammoseq_problems_total{code="login_failed"}') == 5


def test_a_thousand_logins_at_once_do_not_keep_others_from_being_served(
    bundle_folder: Path, tmp_path: Path
) -> None:
    settings = {"access": "login", "users": listed(USERS), "api_keys": f"pacs:{hash_of(OLD_KEY)}"}
    with serving(bundle_folder, tmp_path, **settings) as service:
        # Each on a connection of its own: one that is kept may be closed just as it is used again
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
        timeout = httpx.Timeout(60, pool=None)  # of one that has its connection
        credentials = {"user": "ana", "password": PASSWORD}

        async def asked() -> tuple[httpx.Response, set[int]]:
            async with httpx.AsyncClient(
                base_url=service.client.base_url, limits=limits, timeout=timeout, trust_env=False
            ) as many:
                logins = [
                    asyncio.create_task(many.post("/session", json=credentials))
                    for _ in range(1000)
                ]
                answered = await asyncio.to_thread(
                    service.post, "/predict", content=IMAGE, headers=bearer(OLD_KEY)
                )
                return answered, {login.status_code for login in await asyncio.gather(*logins)}

        answered, statuses = asyncio.run(asked())
        assert answered.status_code == 200
        assert 200 in statuses
        assert statuses <= {200, 429}


# the rate of requests


def test_whoever_asks_too_often_is_told_when_to_come_again(
    bundle_folder: Path, tmp_path: Path
) -> None:
    keys = listed({"pacs": hash_of(OLD_KEY), "ris": hash_of(NEW_KEY)})
    with serving(bundle_folder, tmp_path, access="login", api_keys=keys, rate_limit=3) as service:

        def asked(key: str) -> int:
            return service.get("/v1/models", headers=bearer(key)).status_code

        assert [asked(OLD_KEY) for _ in range(4)] == [200, 200, 200, 429]
        refused = service.post("/predict", content=IMAGE, headers=bearer(OLD_KEY))
        assert code(refused) == "rate_limited"
        assert 0 < int(refused.headers["retry-after"]) <= 20
        assert asked(NEW_KEY) == 200
        assert [asked("nobody's") for _ in range(4)] == [401, 401, 401, 429]
        assert [service.get("/healthz/live").status_code for _ in range(4)] == [200] * 4


def test_where_nobody_is_asked_who_it_is_the_address_counts(
    bundle_folder: Path, tmp_path: Path
) -> None:
    with serving(bundle_folder, tmp_path, rate_limit=2) as service:
        assert [service.get("/state").status_code for _ in range(3)] == [200, 200, 429]


# open


def test_on_this_machine_the_service_is_open_and_says_so(server: Service) -> None:
    for response in (
        server.get("/session"),
        server.post("/session", json={"user": "ana", "password": "x"}),
        server.client.delete("/session"),
    ):
        assert response.json() == {
            "access": "open", "user": None, "csrf": None, "password": False, "oidc": False,
            "https": True,
        }  # fmt: skip
    assert '"access": "open"' in server.printed()
    assert server.get("/session/oidc").status_code == 404


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8000", True),
        ("127.9.9.9", True),
        ("LocalHost:8000", True),
        ("mammoseq.localhost", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("evil_localhost", False),
        ("127.0.0.1.evil.example", False),
        ("192.0.2.1", False),
        ("[2001:db8::1]", False),
        ("evil.example@localhost", False),
        ("evil.example#.localhost", False),
        ("evil.example/.localhost", False),
        ("localhost:8000, evil.example", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_an_open_service_answers_to_names_of_this_machine_only(
    server: Service, host: str, known: bool
) -> None:
    """A page of elsewhere can have its own name lead here, and read what comes."""
    for path in ("/v1/models", "/"):
        response = server.get(path, headers={"Host": host})
        assert response.status_code == (200 if known else 421)
        assert known or code(response) == "wrong_host"


def test_who_states_no_host_is_no_browser(server: Service) -> None:
    address = (server.client.base_url.host, server.client.base_url.port or 80)
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 200),
    ],
    ids=str,
)
def test_an_open_service_does_not_work_for_pages_of_elsewhere(
    server: Service, headers: dict[str, str], expected: int
) -> None:
    response = server.post("/predict", content=IMAGE, headers=headers)
    assert response.status_code == expected
    assert expected == 200 or code(response) == "csrf_failed"
    assert server.get("/v1/models", headers=headers).status_code == 200


def test_an_open_service_is_known_by_its_public_name_too(
    bundle_folder: Path, tmp_path: Path
) -> None:
    public = {"access": "open", "public_url": "https://mammoseq.example.org"}
    with serving(bundle_folder, tmp_path, **public) as service:
        for host, status in (("mammoseq.example.org", 200), ("example.org", 421)):
            response = service.get("/v1/models", headers={"Host": host})
            assert response.status_code == status


@pytest.mark.parametrize(
    ("settings", "access"),
    [
        ({"host": "0.0.0.0"}, "login"),
        ({"host": "0.0.0.0", "access": "open"}, "open"),
        ({"host": "localhost"}, "open"),
        ({"users": f"ana:{USERS['ana']}"}, "login"),
        ({"trusted_proxies": "127.0.0.1"}, "login"),
        ({"users": f"ana:{USERS['ana']}", "access": "open"}, "open"),
    ],
    ids=["all addresses", "said open", "localhost", "users", "proxies", "users, said open"],
)
def test_what_is_for_others_than_who_sits_here_needs_a_login(
    bundle_folder: Path, tmp_path: Path, settings: dict[str, str], access: str
) -> None:
    with serving(bundle_folder, tmp_path, **settings) as service:
        assert service.get("/session").json()["access"] == access
        assert service.get("/v1/models").status_code == (200 if access == "open" else 401)
        told = "open to everybody who reaches 0.0.0.0" in service.printed()
        assert told == ("0.0.0.0" in settings.values() and access == "open")


# behind a proxy


def test_a_trusted_proxy_says_who_calls_and_how(bundle_folder: Path, tmp_path: Path) -> None:
    users = listed({"ana": USERS["ana"]})
    with serving(bundle_folder, tmp_path, users=users, trusted_proxies="127.0.0.0/8") as service:

        def tried(caller: str, password: str) -> httpx.Response:
            headers = {
                "X-Forwarded-For": caller, "X-Forwarded-Proto": "https",
                "Host": "mammoseq.example.org",
            }  # fmt: skip
            credentials = {"user": "ana", "password": password}
            return service.post("/session", json=credentials, headers=headers)

        for number in range(5):
            assert code(tried("192.0.2.1", f"wrong {number}")) == "login_failed"
        assert code(tried("192.0.2.1", PASSWORD)) == "login_locked"
        answer = tried("192.0.2.2", PASSWORD)
        assert answer.status_code == 200
        assert answer.json()["https"] is True
        assert answer.headers["set-cookie"].startswith("__Host-mammoseq=")


# the first look


def one_time_password(service: Service) -> str:
    (password,) = re.findall(r"^ {4}(\S{5}(?:-\S{5}){4})$", service.printed(), re.MULTILINE)
    return str(password)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_one_time_password_is_printed_once_and_good_for_one_login(
    bundle_folder: Path, tmp_path: Path, processes: int
) -> None:
    with serving(
        bundle_folder, tmp_path, access="login", processes=processes, workers=1
    ) as service:
        while service.printed().count("Application startup complete") < processes:
            time.sleep(0.02)
        assert service.get("/session").json()["password"] is True
        password = one_time_password(service)

        def tried(_: int) -> httpx.Response:
            # a connection of its own, so that every process is asked
            with httpx.Client(base_url=service.client.base_url, trust_env=False) as client:
                return client.post("/session", json={"user": "first", "password": password})

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(tried, range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
        (first,) = [answer for answer in answers if answer.status_code == 200]
        assert service.get("/session").json()["password"] is False
        for _ in range(8):  # its session holds in every process
            with httpx.Client(
                base_url=service.client.base_url, trust_env=False, cookies=first.cookies
            ) as client:
                assert client.get("/v1/models").status_code == 200
        assert service.terminate() == 0


def test_each_start_has_a_one_time_password_of_its_own(bundle_folder: Path, tmp_path: Path) -> None:
    passwords = set()
    for _ in range(2):
        with serving(bundle_folder, tmp_path, access="login") as service:
            passwords.add(one_time_password(service))
    assert len(passwords) == 2


@pytest.mark.parametrize(
    "settings",
    [{"users": f"ana:{USERS['ana']}"}, {"api_keys": f"pacs:{hash_of(OLD_KEY)}"}],
    ids=["users", "keys only"],
)
def test_where_somebody_is_named_there_is_no_one_time_password(
    bundle_folder: Path, tmp_path: Path, settings: dict[str, str]
) -> None:
    with serving(bundle_folder, tmp_path, access="login", **settings) as service:
        assert "good for one login" not in service.printed()
        assert service.get("/session").json()["password"] is ("users" in settings)


# starting


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"users": "ana:SECRET"}, "MAMMOSEQ_USERS: entry 1"),
        ({"api_keys": f"pacs:{hash_of(OLD_KEY)} pacs:SECRET"}, "MAMMOSEQ_API_KEYS: entry 2"),
        ({"users_file": "/"}, "MAMMOSEQ_USERS_FILE cannot be read"),
        ({"session_secret": "SECRET-too-short"}, "MAMMOSEQ_SESSION_SECRET"),
        ({"access": "maybe"}, "MAMMOSEQ_ACCESS"),
        ({"session_hours": "0"}, "MAMMOSEQ_SESSION_HOURS"),
        ({"oidc_issuer": "https://id.example.org"}, "MAMMOSEQ_OIDC_CLIENT_ID"),
        ({"oidc_client_secret": "SECRET"}, "MAMMOSEQ_OIDC_ISSUER"),
        (
            {
                "oidc_issuer": "http://id.example.org", "oidc_client_id": "m",
                "oidc_client_secret": "SECRET",
            },
            "MAMMOSEQ_OIDC_ISSUER",
        ),
        ({"public_url": "javascript:alert(1)"}, "MAMMOSEQ_PUBLIC_URL"),
    ],
)  # fmt: skip
def test_what_is_not_right_refuses_the_start_and_is_named(
    bundle_folder: Path, settings: dict[str, str], named: str
) -> None:
    status, printed = refused_to_start(bundle_folder, **settings)
    assert status == 1
    (line,) = [line for line in printed.splitlines() if line.startswith("refused to start: ")]
    assert named in line
    assert "SECRET-" not in printed
    assert ":SECRET" not in printed
    assert "Traceback" not in printed


def test_several_processes_refuse_the_start_with_one_sentence(bundle_folder: Path) -> None:
    status, printed = refused_to_start(bundle_folder, users="ana:SECRET", processes=2)
    assert status == 1
    assert printed.count("refused to start: MAMMOSEQ_USERS: entry 1") == 1


def test_secrets_are_neither_printed_nor_logged(guarded: Guarded) -> None:
    client = guarded.logged_in()
    client.post("/session", json={"user": "SECRETuser", "password": "SECRETpassword"})
    client.get("/v1/models", headers=bearer("SECRETkey"))
    printed = guarded.service.printed()
    for secret in (
        SECRET, "SECRET", PASSWORD, OLD_KEY, hash_of(OLD_KEY), USERS["ana"],
        client.cookies["mammoseq"], client.headers["X-CSRF-Token"],
    ):  # fmt: skip
        assert secret not in printed
    assert '"session_secret":"**********"' in printed
    assert '"users": 5, "api_keys": 1' in printed


# OpenAPI


def test_openapi_says_how_to_come_in_where_it_is_asked(guarded: Guarded) -> None:
    openapi = guarded.service.get("/openapi.json").json()
    assert set(openapi["components"]["securitySchemes"]) == {"key", "session"}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            url = path.replace("{", "").replace("}", "")
            asked = guarded.service.client.request(method, url).status_code == 401
            if path.startswith("/session"):
                assert "security" not in operation
                continue
            assert ("security" in operation) == asked, path
            assert ("401" in operation["responses"]) == asked, path
            told = str(operation["responses"].get("403", ""))
            assert ("forbidden" in told) == asked, path
            assert ("csrf_failed" in told) == (asked and method != "get"), path
