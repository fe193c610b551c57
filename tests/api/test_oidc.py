"""Logging in with an OpenID provider: a real one, and one that has gone wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.page.browser import launch
from tests.provider import CLIENT, Provider, at_provider, running_provider
from tests.serving import Service, free_port, serving


@pytest.fixture(scope="module")
def service(service_with_provider: Service) -> Service:
    return service_with_provider


@pytest.fixture
def browser(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.client.base_url, trust_env=False, timeout=30) as client:
        yield client


def sent_back(browser: httpx.Client, user: str = "ana") -> str:
    """Where the provider sends the browser of a user who has logged in there."""
    begun = browser.get("/session/oidc")
    assert begun.status_code == 303
    page = browser.get(begun.headers["location"], follow_redirects=True)
    return str(at_provider(browser, page, user).headers["location"])


def code(response: httpx.Response) -> str:
    return str(response.json()["code"])


def told_on_the_page(response: httpx.Response) -> str:
    """The problem with which a browser is led back to the page, and without a session."""
    assert response.status_code == 303
    assert "mammoseq=" not in response.headers.get("set-cookie", "")
    to_page, _, problem = response.headers["location"].partition("/?login=")
    assert to_page == ""
    return problem


def test_the_provider_is_offered_and_the_way_there_is_by_pkce(browser: httpx.Client) -> None:
    assert browser.get("/session").json() == {
        "access": "login", "user": None, "csrf": None, "password": False, "oidc": True,
        "https": True,
    }  # fmt: skip
    begun = browser.get("/session/oidc")
    asked = httpx.URL(begun.headers["location"]).params
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"{browser.base_url}/session/oidc/callback"
    assert set(asked["scope"].split()) == {"openid", "profile", "email"}
    assert asked["state"]
    assert asked["nonce"]
    cookie = begun.headers["set-cookie"]
    assert cookie.startswith("mammoseq-oidc=")
    assert cookie.endswith("; HttpOnly; Max-Age=600; Path=/; SameSite=lax")
    assert "SECRET" not in begun.headers["location"] + cookie


def test_whoever_logs_in_there_is_in_here_until_logging_out(browser: httpx.Client) -> None:
    back = browser.get(sent_back(browser))
    assert back.status_code == 303
    assert back.headers["location"] == "/"
    assert set(browser.cookies) >= {"mammoseq"}
    assert "mammoseq-oidc" not in browser.cookies
    state = browser.get("/session").json()
    assert state["user"] == "ana@hospital"
    assert browser.get("/v1/models").status_code == 200
    headers = {"X-CSRF-Token": state["csrf"]}
    assert code(browser.delete("/session")) == "csrf_failed"
    assert browser.delete("/session", headers=headers).json()["user"] is None
    assert browser.get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("user", "name"),
    [("plain", "plain@example.org"), ("plain-unverified", "plain-unverified")],
)
def test_without_a_user_name_it_is_a_verified_address_or_the_subject(
    browser: httpx.Client, user: str, name: str
) -> None:
    browser.get(sent_back(browser, user))
    assert browser.get("/session").json()["user"] == name


HOUR_AGO = int(time.time()) - 3600


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another-service"},
        {"aud": "another-service", "azp": "mammoseq"},
        {"aud": None},
        {"exp": HOUR_AGO},
        {"exp": None},
        {"iss": "https://another.example.org"},
        {"iss": None},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
        {"key": "other"},
        {"alg": "none"},
    ],
    ids=lambda claims: str(claims).replace(str(HOUR_AGO), "an hour ago"),
)
def test_an_id_token_that_is_not_for_this_login_is_refused(
    browser: httpx.Client, provider: Provider, claims: dict[str, object]
) -> None:
    address = sent_back(browser)
    provider.spoil(**claims)
    assert told_on_the_page(browser.get(address)) == "login_failed"
    assert "mammoseq" not in browser.cookies
    assert browser.get("/v1/models").status_code == 401


def test_a_changed_state_is_refused(browser: httpx.Client) -> None:
    address = httpx.URL(sent_back(browser))
    for changed in (
        address.copy_set_param("state", "changed"),
        address.copy_remove_param("state"),
    ):
        assert told_on_the_page(browser.get(changed)) == "login_failed"


def test_a_login_that_was_begun_in_another_browser_is_refused(
    browser: httpx.Client, service: Service
) -> None:
    """Or somebody could be logged in as somebody else without knowing it."""
    address = sent_back(browser)
    with httpx.Client(trust_env=False) as other:
        assert told_on_the_page(other.get(address)) == "login_failed"
        other.get(f"{service.client.base_url}/session/oidc")
        assert told_on_the_page(other.get(address)) == "login_failed"
        assert not [name for name in other.cookies if name == "mammoseq"]


def test_a_changed_cookie_is_refused(browser: httpx.Client) -> None:
    address = sent_back(browser)
    kept = browser.cookies["mammoseq-oidc"]
    browser.cookies.clear()
    browser.cookies.set("mammoseq-oidc", ("A" if kept[0] != "A" else "B") + kept[1:])
    assert told_on_the_page(browser.get(address)) == "login_failed"


def test_a_code_is_good_for_one_login(browser: httpx.Client) -> None:
    address = sent_back(browser)
    kept = browser.cookies["mammoseq-oidc"]
    assert browser.get(address).status_code == 303
    browser.cookies.clear()
    browser.cookies.set("mammoseq-oidc", kept)
    assert told_on_the_page(browser.get(address)) == "login_failed"


def test_whoever_turns_back_at_the_provider_is_not_in(browser: httpx.Client) -> None:
    begun = browser.get("/session/oidc")
    state = httpx.URL(begun.headers["location"]).params["state"]
    for params in ({"error": "access_denied"}, {"error": "SECRET <b>"}, {}):
        refused = browser.get("/session/oidc/callback", params={"state": state, **params})
        assert told_on_the_page(refused) == "login_failed"


def test_nothing_secret_is_logged(browser: httpx.Client, service: Service) -> None:
    address = httpx.URL(sent_back(browser))
    browser.get(address)
    printed = service.printed()
    for secret in ("SECRET", address.params["code"], address.params["state"], "ana@hospital"):
        assert secret not in printed
    assert "Traceback" not in printed


def test_a_provider_that_is_down_is_told(bundle_folder: Path, tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    users = "ana:$argon2id$v=19$m=19456,t=2,p=1$VTx9DPoNk3tbRhaowpYX6A$f1bimtYSQHgCLp3L1sGTkun5Jw"
    with serving(bundle_folder, tmp_path, users=users, oidc_issuer=dead, **CLIENT) as service:
        assert service.get("/healthz/ready").status_code == 200
        assert told_on_the_page(service.get("/session/oidc")) == "provider_unreachable"
        assert service.metric('mammoseq_problems_total{code="provider_unreachable"}') == 1
        assert service.get("/session").json()["oidc"] is True
        assert "Traceback" not in service.printed()


def test_a_provider_that_goes_down_meanwhile_is_told(bundle_folder: Path, tmp_path: Path) -> None:
    with (
        running_provider(tmp_path) as provider,
        serving(bundle_folder, tmp_path, **provider.settings()) as service,
    ):
        address = sent_back(service.client)
        provider.process.kill()
        provider.process.wait()
        assert told_on_the_page(service.get(address)) == "provider_unreachable"
        assert "Traceback" not in service.printed()


def test_a_provider_that_describes_another_one_is_refused(
    bundle_folder: Path, tmp_path: Path, provider: Provider
) -> None:
    other = provider.issuer + "/"  # an issuer is compared to the letter
    with serving(bundle_folder, tmp_path, oidc_issuer=other, **CLIENT) as service:
        assert told_on_the_page(service.get("/session/oidc")) == "provider_unreachable"


def test_a_browser_comes_back_from_another_site_and_is_in(
    service: Service, provider: Provider
) -> None:
    """The session's cookie is not sent with what another site begins, the way back included: the
    page that it leads to must be in all the same."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = launch(playwright)
        page = chromium.new_page()
        page.goto(f"{service.client.base_url}/session/oidc")
        assert page.url.startswith(provider.issuer)
        page.fill("input[name=login]", "ana")
        page.fill("input[name=password]", "any")
        page.click("button[type=submit]")
        page.click("button[type=submit]")
        page.wait_for_url(f"{service.client.base_url}/")
        asked = "async (path) => { const r = await fetch(path); return [r.status, await r.json()] }"
        status, state = page.evaluate(asked, "/session")
        assert (status, state["user"]) == (200, "ana@hospital")
        assert page.evaluate(asked, "/v1/models")[0] == 200
        assert page.evaluate("document.cookie") == ""
        chromium.close()
