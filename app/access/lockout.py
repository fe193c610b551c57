"""Who has failed to log in too often, and must wait. In memory, of one process."""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TypeVar

T = TypeVar("T")

MOST_OF_USER = 5  # failures of one user from one address
MOST_OF_ADDRESS = 20  # failures of an address, whoever is tried
WINDOW_SECONDS = 900.0
LOCKED_SECONDS = 900.0
_MOST_REMEMBERED = 10_000  # about 3 MB


class Lockout:
    """``clock`` tells seconds. A name that no user has counts as any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        self._locked_until: OrderedDict[str, float] = OrderedDict()

    def seconds(self, user: str, address: str) -> int:
        """How long this user must wait at this address; 0: not at all."""
        now = self._clock()
        until = max(self._locked_until.get(key, 0.0) for key, _ in _counted(user, address))
        return max(0, math.ceil(until - now))

    def failed(self, user: str, address: str) -> None:
        now = self._clock()
        for key, most in _counted(user, address):
            recent = [at for at in self._failures.get(key, ()) if now - at < WINDOW_SECONDS]
            recent.append(now)
            if len(recent) < most:
                _keep(self._failures, key, recent)
            else:
                self._failures.pop(key, None)
                _keep(self._locked_until, key, now + LOCKED_SECONDS)

    def succeeded(self, user: str, address: str) -> None:
        """Forgets the failures of the user, not those of the address: who knows one password may
        be guessing another."""
        (key, _), _ = _counted(user, address)
        self._failures.pop(key, None)


def _counted(user: str, address: str) -> Iterator[tuple[str, int]]:
    """What failures are counted by, and how many are too many."""
    network = place(address)
    # Hashed: names are of any length, and a password may be typed for a name
    yield hashlib.sha256(f"{network} {user}".encode()).hexdigest(), MOST_OF_USER
    yield network, MOST_OF_ADDRESS


def place(address: str) -> str:
    """The address, of IPv6 the network of 64 bits: a machine has as many addresses as it likes.
    What is no address is one place: a proxy may pass on anything."""
    try:
        known = ip_address(address)
    except ValueError:
        return ""
    if isinstance(known, IPv6Address):
        return str(known.ipv4_mapped or ip_network((known, 64), strict=False))
    return str(known)


def _keep(remembered: OrderedDict[str, T], key: str, value: T) -> None:
    remembered[key] = value
    remembered.move_to_end(key)
    if len(remembered) > _MOST_REMEMBERED:
        remembered.popitem(last=False)
