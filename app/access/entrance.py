"""Who may come in, and how: everything about it that the HTTP edge asks."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.access.hosts import is_loopback
from app.access.keys import Keys
from app.access.lists import LONGEST_NAME, plain_name
from app.access.lockout import Lockout, place
from app.access.onetime import USER, OneTimePassword
from app.access.passwords import LONGEST, matches, unmatched
from app.access.provider import provider_of, token_issuer_of
from app.access.rate import Rate
from app.access.sessions import Session, Sessions, Signed
from app.access.users import Users
from app.access.who import Who
from app.problems import Refusal
from app.settings import Settings

_MOST_WAITING = 64  # logins; each takes about 25 ms
_PROVIDER_SECONDS = 600  # to log in there


class Entrance:
    """``required`` says whether one must be somebody to come in."""

    def __init__(self, settings: Settings, shared_folder: Callable[[], Path]) -> None:
        """``shared_folder`` is asked for only where a one-time password is needed. Raises
        ``AccessError``."""
        self.users = Users(settings.users, settings.users_file)
        self.keys = Keys(settings.api_keys, settings.api_keys_file)
        self.provider = provider_of(settings)
        self.token_issuer = token_issuer_of(settings)
        self.required = _is_required(settings)
        given = settings.session_secret
        secret = given.get_secret_value() if given is not None else secrets.token_hex()
        self.sessions = Sessions(secret, settings.session_hours)
        self.provider_state = Signed(secret, "provider", _PROVIDER_SECONDS)
        nobody = not (len(self.users) or len(self.keys) or self.provider or self.token_issuer)
        self.one_time: OneTimePassword | None = None
        if self.required and nobody:
            self.one_time = OneTimePassword(shared_folder() / "one-time-password")
        self._lockout = Lockout()
        self._rate = Rate(settings.rate_limit) if settings.rate_limit is not None else None
        self._thread = ThreadPoolExecutor(1, "passwords")
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0
        if self.required:
            unmatched(self.users.any_hash())  # or the first unknown user would take longer

    @property
    def takes_passwords(self) -> bool:
        """Whether anybody could log in with a password."""
        return self.required and (self._one_time_hash() is not None or len(self.users) > 0)

    def holder_of(self, key: str) -> Who | None:
        """Who comes with a key."""
        return self.keys.holder_of(key)

    def count(self, who: Who | None, address: str) -> None:
        """Count a request. Raises ``Refusal`` (``rate_limited``)."""
        if self._rate is not None:
            caller = f"{who.kind} {who.name}" if who is not None else place(address)
            seconds = self._rate.seconds(caller)
            if seconds:
                raise Refusal("rate_limited", "Too many requests came.", retry_after=seconds)

    def session_of(self, cookie: str) -> Session | None:
        """The session of a cookie, if it still holds: its user is there, with the same password,
        and the way in that it came by is still one."""
        session = self.sessions.read(cookie)
        if session is None:
            return None
        if session.who.kind == "user":
            proof = self.users.hash_of(session.who.name)
            holds = proof is not None and hmac.compare_digest(
                session.bound_to, self.sessions.bound_to(proof)
            )
        elif session.who.kind == "once":
            self._drop_one_time()
            holds = self.one_time is not None
        else:
            holds = session.who.kind == "oidc" and self.provider is not None
        return session if holds else None

    async def log_in(self, user: str, password: str, address: str) -> str:
        """A new session's cookie. Raises ``Refusal``: ``invalid_request``, ``login_failed``,
        ``login_locked``, ``overloaded``.

        One password at a time is compared, whatever comes: each takes 19 MiB and a core.
        """
        _raise_if_too_long(user, password)
        user = plain_name(user)
        if self._waiting >= _MOST_WAITING:
            raise Refusal("overloaded", "Too many log in at once.", retry_after=2)
        self._waiting += 1
        try:
            async with self._turn:
                self._raise_if_locked(user, address)
                session = await self._session_for(user, password)
                if session is None:
                    self._lockout.failed(user, address)
                    raise Refusal("login_failed", "User or password is wrong.")
                self._lockout.succeeded(user, address)
                return session
        finally:
            self._waiting -= 1

    async def _session_for(self, user: str, password: str) -> str | None:
        """None if the password is not the user's; that takes as long if there is no such user."""
        loop = asyncio.get_running_loop()
        known = self.users.hash_of(user)
        once = self._one_time_hash()
        if user != USER or known is not None:
            once = None
        compared = known or once
        if compared is None:  # not on the event loop: it is computed when the users have changed
            like = self.users.any_hash()
            compared = await loop.run_in_executor(self._thread, unmatched, like)
        right = await loop.run_in_executor(self._thread, matches, compared, password)
        if right and known is not None:
            return self.sessions.begun(Who(user, "user"), known)
        if right and once is not None and self.one_time is not None and self.one_time.use_up():
            return self.sessions.begun(Who(user, "once"))
        return None

    def _one_time_hash(self) -> str | None:
        """None if there is no one-time password, it was used, or there have been users."""
        self._drop_one_time()
        return self.one_time.hash() if self.one_time is not None else None

    def _drop_one_time(self) -> None:
        """Once there are users it is gone for good, also if their list should be empty again: its
        password still stands in a log."""
        if self.one_time is not None and len(self.users):
            self.one_time.use_up()
            self.one_time = None

    def _raise_if_locked(self, user: str, address: str) -> None:
        seconds = self._lockout.seconds(user, address)
        if seconds:
            raise Refusal("login_locked", "Too many logins failed.", retry_after=seconds)


def _is_required(settings: Settings) -> bool:
    if settings.access != "auto":
        return settings.access == "login"
    # What is set says that it is not only for who sits here: a proxy, say, calls from this machine
    meant_for_others = (
        settings.users,
        settings.users_file,
        settings.api_keys,
        settings.api_keys_file,
        settings.oidc_issuer,
        settings.public_url,
        settings.trusted_proxies or None,
    )
    return not is_loopback(settings.host) or any(one is not None for one in meant_for_others)


def _raise_if_too_long(user: str, password: str) -> None:
    if len(user) > LONGEST_NAME or len(password.encode()) > LONGEST:
        raise Refusal(
            "invalid_request",
            f"A user has at most {LONGEST_NAME} characters, a password {LONGEST} bytes.",
        )
