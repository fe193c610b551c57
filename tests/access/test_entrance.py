"""Who may come in, as the HTTP edge asks it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.access.entrance import Entrance
from app.access.onetime import USER
from app.access.passwords import hashed
from app.problems import Refusal
from app.settings import Settings

HERE = "192.0.2.1"


def test_the_one_time_password_is_gone_for_good_once_there_have_been_users(tmp_path: Path) -> None:
    users = tmp_path / "users"
    entrance = Entrance(Settings(access="login", users_file=users), lambda: tmp_path)
    assert entrance.one_time is not None
    password = entrance.one_time.made()
    assert entrance.takes_passwords
    users.write_text(f"ana:{hashed('correct horse battery')}\n")
    assert entrance.takes_passwords
    users.write_text("")
    assert not entrance.takes_passwords
    with pytest.raises(Refusal, match="wrong"):
        asyncio.run(entrance.log_in(USER, password, HERE))


def test_a_session_of_the_one_time_password_ends_once_there_are_users(tmp_path: Path) -> None:
    users = tmp_path / "users"
    entrance = Entrance(Settings(access="login", users_file=users), lambda: tmp_path)
    assert entrance.one_time is not None
    cookie = asyncio.run(entrance.log_in(USER, entrance.one_time.made(), HERE))
    assert entrance.session_of(cookie) is not None
    users.write_text(f"ana:{hashed('correct horse battery')}\n")
    assert entrance.session_of(cookie) is None
    users.write_text("")
    assert entrance.session_of(cookie) is None


@pytest.mark.parametrize(
    "proxies",
    [
        "*",
        "0.0.0.0/0",
        "::/0",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "proxy.example.org",
        "10.0.0.1,",
        "10.0.0.1 ::1",
    ],
)
def test_proxies_that_are_no_networks_are_refused(proxies: str) -> None:
    with pytest.raises(ValueError, match="addresses and networks"):
        Settings(trusted_proxies=proxies)


def test_proxies_are_addresses_and_networks() -> None:
    for proxies in ("", "127.0.0.1", "10.0.0.0/8, ::1,2001:db8::/32"):
        assert Settings(trusted_proxies=proxies).trusted_proxies == proxies
