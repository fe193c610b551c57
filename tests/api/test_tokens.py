"""Machines that come in with an access token of an OpenID provider: a real one, and tokens that
have gone wrong."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.access.keys import hash_of, new_key
from app.access.provider import TokenIssuer
from app.api.tokens import Tokens
from app.problems import Refusal
from tests.pictures import breast, png
from tests.provider import Provider, running_provider
from tests.serving import Service, refused_to_start, serving

IMAGE = png(breast())
AUDIENCE = "https://mammoseq.example.org"
HOUR = 3600


@pytest.fixture(scope="module")
def service(
    provider: Provider, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    settings = {"oidc_issuer": provider.issuer, "oidc_audience": AUDIENCE}
    with serving(bundle_folder, folder, **settings) as service:
        yield service


def predicted(service: Service, token: str) -> httpx.Response:
    return service.post("/predict", content=IMAGE, headers={"Authorization": f"Bearer {token}"})


def test_a_machine_with_a_token_is_let_in_for_what_its_scopes_say(
    service: Service, provider: Provider
) -> None:
    token = provider.token(AUDIENCE)
    assert predicted(service, token).status_code == 200
    for scope, statuses in {"predict": [200, 403], "read": [403, 200], "write": [403, 403]}.items():
        token = provider.token(AUDIENCE, scope)
        state = service.get("/state", headers={"Authorization": f"Bearer {token}"})
        assert [predicted(service, token).status_code, state.status_code] == statuses
    assert predicted(service, provider.token(AUDIENCE, "write")).json()["code"] == "forbidden"


def test_who_it_is_is_the_subject(provider: Provider) -> None:
    tokens = Tokens(TokenIssuer(provider.issuer, AUDIENCE, None))
    who = asyncio.run(tokens.holder_of(provider.token(AUDIENCE, "predict")))
    assert (who.name, who.kind, who.scopes) == ("pacs", "token", {"predict"})


def test_a_token_signed_on_an_elliptic_curve_is_good_too(provider: Provider) -> None:
    audience = f"{AUDIENCE}/es256"
    tokens = Tokens(TokenIssuer(provider.issuer, audience, None))
    assert asyncio.run(tokens.holder_of(provider.token(audience))).name == "pacs"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://another.example.org"},
        {"iss": None},
        {"aud": None},
        {"aud": ["https://another.example.org"]},
        {"exp": int(time.time()) - 120},
        {"exp": None},
        {"exp": "tomorrow"},
        {"nbf": int(time.time()) + HOUR},
        {"iat": int(time.time()) + HOUR},
        {"sub": None},
        {"sub": ["pacs"]},
        {"alg": "none"},
        {"key": "public"},
        {"key": "other"},
        {"key": "other", "kid": "other"},
        {"kid": "nobody"},
        {"kid": "two"},
    ],
    ids=lambda claims: re.sub(r"\d{9,}", "then", str(claims)),
)
def test_a_token_that_is_not_good_is_refused(
    service: Service, provider: Provider, claims: dict[str, object]
) -> None:
    provider.spoil(**claims)
    refused = predicted(service, provider.token(AUDIENCE))
    assert refused.status_code == 401
    assert refused.json()["code"] == "login_required"


@pytest.mark.parametrize("claims", [{"scope": None}, {"scope": 7}, {"scope": ["x", {}]}], ids=str)
def test_a_token_without_scopes_is_good_for_nothing(
    service: Service, provider: Provider, claims: dict[str, object]
) -> None:
    provider.spoil(**claims)
    assert predicted(service, provider.token(AUDIENCE)).json()["code"] == "forbidden"


def test_scopes_may_be_a_list_by_another_name(service: Service, provider: Provider) -> None:
    provider.spoil(scope=None, scp=["predict"])
    assert predicted(service, provider.token(AUDIENCE)).status_code == 200


def test_a_token_for_another_service_is_refused(service: Service, provider: Provider) -> None:
    token = provider.token("https://another.example.org")
    assert predicted(service, token).status_code == 401


def test_clocks_may_differ_by_a_minute(service: Service, provider: Provider) -> None:
    provider.spoil(exp=int(time.time()) - 30, iat=int(time.time()) + 30)
    assert predicted(service, provider.token(AUDIENCE)).status_code == 200


@pytest.mark.parametrize(
    "token", ["..", "a.b.c", "e30.e30.", "e30.e30.e30", "é.é.é", f"{'x' * 9000}.e30.x"]
)
def test_what_is_no_token_is_refused(service: Service, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}".encode("latin-1")}
    assert service.post("/predict", content=IMAGE, headers=headers).status_code == 401
    assert "Traceback" not in service.printed()


def test_nothing_of_a_token_is_logged(service: Service, provider: Provider) -> None:
    provider.spoil(kid="SECRETkid", sub="SECRETsub")
    token = provider.token(AUDIENCE)
    assert predicted(service, token).status_code == 401
    assert not {"SECRET", *token.split(".")} & set(service.printed().split())


# the provider's keys


class Hands:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_keys_hold_for_a_day_while_the_provider_is_down(tmp_path: Path) -> None:
    clock = Hands()

    async def tried(tokens: Tokens, token: str) -> str:
        try:
            return (await tokens.holder_of(token)).name
        except Refusal as refusal:
            return refusal.code
        finally:
            await asyncio.sleep(0)  # a renewal may have begun

    async def tell() -> None:
        with running_provider(tmp_path) as provider:
            tokens = Tokens(TokenIssuer(provider.issuer, AUDIENCE, None), clock)
            provider.spoil(exp=int(time.time()) + HOUR)
            token = provider.token(AUDIENCE)
            assert await tried(tokens, token) == "pacs"
        late = Tokens(TokenIssuer(provider.issuer, AUDIENCE, None), clock)
        assert await tried(late, token) == "provider_unreachable"
        for hour in (1, 2, 23):
            clock.now = hour * HOUR + 1
            assert await tried(tokens, token) == "pacs"
        clock.now = 25 * HOUR
        assert await tried(tokens, token) == "provider_unreachable"

    asyncio.run(tell())


def test_a_new_key_is_fetched_but_not_more_often_than_every_ten_seconds(tmp_path: Path) -> None:
    clock = Hands()

    async def tell() -> None:
        with running_provider(tmp_path) as provider:
            tokens = Tokens(TokenIssuer(provider.issuer, AUDIENCE, None), clock)
            await tokens.holder_of(provider.token(AUDIENCE))
            provider.publish_other_key()
            provider.spoil(key="other", kid="other")
            token = provider.token(AUDIENCE)
            clock.now = 9.0
            with pytest.raises(Refusal):
                await tokens.holder_of(token)
            clock.now = 10.0
            assert (await tokens.holder_of(token)).name == "pacs"

    asyncio.run(tell())


def test_a_provider_that_is_down_is_told_and_keys_go_on_opening(
    bundle_folder: Path, tmp_path: Path, provider: Provider
) -> None:
    key = new_key()
    with serving(
        bundle_folder,
        tmp_path,
        oidc_issuer="http://127.0.0.1:9",
        oidc_audience=AUDIENCE,
        api_keys=f"pacs:{hash_of(key)}",
    ) as service:
        refused = predicted(service, provider.token(AUDIENCE))
        assert (refused.status_code, refused.json()["code"]) == (502, "provider_unreachable")
        assert predicted(service, key).status_code == 200
        assert "Traceback" not in service.printed()


def test_an_audience_without_an_issuer_refuses_the_start(bundle_folder: Path) -> None:
    status, printed = refused_to_start(bundle_folder, oidc_audience=AUDIENCE)
    assert status == 1
    assert "MAMMOSEQ_OIDC_AUDIENCE needs MAMMOSEQ_OIDC_ISSUER" in printed


def test_tokens_are_taken_over_https_only(bundle_folder: Path) -> None:
    issuer = "http://id.example.org"
    status, printed = refused_to_start(bundle_folder, oidc_audience=AUDIENCE, oidc_issuer=issuer)
    assert status == 1
    assert "https" in printed
