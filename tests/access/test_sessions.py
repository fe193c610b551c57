"""What a browser keeps: signed, dated, bound to a password, and worth nothing when changed."""

from __future__ import annotations

import pytest

from app.access.sessions import Sessions, Signed
from app.access.who import Who

SECRET = "s" * 32
ANA = Who("ana", "user")


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_tells_who_began_it_until_its_time_is_over() -> None:
    clock = Clock()
    sessions = Sessions(SECRET, hours=8, clock=clock)
    text = sessions.begun(ANA)
    clock.now += 8 * 3600
    session = sessions.read(text)
    assert session is not None
    assert session.who == ANA
    clock.now += 1
    assert sessions.read(text) is None


@pytest.mark.parametrize(("seconds", "holds"), [(1, True), (60, True), (61, False)])
def test_a_clock_that_was_set_back_a_little_ends_no_session(seconds: int, holds: bool) -> None:
    """Or it would not hold yet at a replica whose clock is behind."""
    clock = Clock()
    sessions = Sessions(SECRET, hours=8, clock=clock)
    text = sessions.begun(ANA)
    clock.now -= seconds
    assert (sessions.read(text) is not None) == holds


def test_a_session_of_another_secret_or_purpose_is_none() -> None:
    text = Sessions(SECRET, 8).begun(ANA)
    assert Sessions("t" * 32, 8).read(text) is None
    assert Signed(SECRET, "provider", 3600).read(text) is None
    assert Sessions(SECRET, 8).read(Signed(SECRET, "provider", 3600).written(["x"] * 4)) is None


def test_a_session_with_one_character_changed_is_none() -> None:
    sessions = Sessions(SECRET, 8)
    text = sessions.begun(ANA)
    for place, character in enumerate(text):
        # The last of a signature holds two bits that mean nothing
        if place < len(text) - 1:
            other = "A" if character != "A" else "B"
            assert sessions.read(text[:place] + other + text[place + 1 :]) is None


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "\udcff", "é" * 9, "x" * 100_000])
def test_what_is_no_session_at_all_is_none(text: str) -> None:
    assert Sessions(SECRET, 8).read(text) is None


def test_each_session_has_a_csrf_token_of_its_own_that_its_cookie_does_not_hold() -> None:
    sessions = Sessions(SECRET, 8)
    texts = [sessions.begun(ANA) for _ in range(2)]
    tokens = []
    for text in texts:
        session = sessions.read(text)
        assert session is not None
        assert session.csrf not in text
        tokens.append(session.csrf)
    assert len(set(tokens)) == 2


def test_a_session_remembers_what_proved_it_without_holding_it() -> None:
    sessions = Sessions(SECRET, 8)
    text = sessions.begun(ANA, "$argon2id$PROOF")
    session = sessions.read(text)
    assert session is not None
    assert session.bound_to == sessions.bound_to("$argon2id$PROOF")
    assert session.bound_to != sessions.bound_to("$argon2id$OTHER")
    assert "PROOF" not in text
