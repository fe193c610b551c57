"""Clients that know every right answer: what an undisturbed service said is what a disturbed one
must say."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.pictures import breast, png

NO_ANSWER = 0  # in the place of a status
_TIMEOUT_SECONDS = 120
_OF_ONE_ANSWER = ("request_id", "timings_ms")


@dataclass(frozen=True)
class Question:
    """A request; ``expected`` is status and answer of a service that does nothing else."""

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    expected: tuple[int, Any] = (NO_ANSWER, None)


@dataclass(frozen=True)
class Outcome:
    """When a request was sent (``time.monotonic``), its status, and whether the answer is the
    expected one."""

    sent: float
    status: int
    right: bool


@dataclass
class Load:
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        """Those without an answer, or with one that says that there is none (5xx)."""
        return [o for o in self.outcomes if o.status == NO_ANSWER or o.status >= 500]

    @property
    def wrong(self) -> list[Outcome]:
        """Those that were answered, and not as expected."""
        return [o for o in self.outcomes if not o.right and o not in self.failed]


def lasting(answer: bytes) -> Any:
    """What of an answer does not change from one request to the next."""
    try:
        told = json.loads(answer)
    except ValueError:
        return answer
    return {name: value for name, value in told.items() if name not in _OF_ONE_ANSWER}


def singles(number: int = 5) -> list[Question]:
    """Different images, to be scored alone."""
    return [
        Question("/predict?overlay=none&gate=warn", png(breast(300, 200, seed=seed)))
        for seed in range(number)
    ]


def learned(port: int, questions: Sequence[Question]) -> list[Question]:
    """``questions`` with the answers that the service gives them now, one at a time."""
    connection = _connection(port)
    known = []
    for question in questions:
        status, answer = _ask(connection, question)
        known.append(
            Question(question.path, question.body, question.headers, (status, lasting(answer)))
        )
    connection.close()
    return known


@contextmanager
def under_load(port: int, questions: Sequence[Question], *, clients: int = 4) -> Iterator[Load]:
    """While in here so many clients ask in turn, each as soon as it was answered."""
    load, over = Load(), threading.Event()

    def ask(first: int) -> None:
        connection = _connection(port)
        number = first
        while not over.is_set():
            question = questions[number % len(questions)]
            sent = time.monotonic()
            try:
                status, answer = _ask(connection, question)
            except (OSError, http.client.HTTPException):
                connection.close()
                load.outcomes.append(Outcome(sent, NO_ANSWER, right=False))
            else:
                right = (status, lasting(answer)) == question.expected
                load.outcomes.append(Outcome(sent, status, right))
            number += 1
        connection.close()

    with asking(ask, clients, over):
        yield load


@contextmanager
def asking(ask: Callable[[int], None], clients: int, over: threading.Event) -> Iterator[None]:
    """While in here so many threads ``ask``, each by its number; then they are told and ended."""
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def wait_for_answers(load: Load, number: int) -> None:
    """Until so many more were answered."""
    enough, deadline = len(load.outcomes) + number, time.monotonic() + _TIMEOUT_SECONDS
    while len(load.outcomes) < enough:
        assert time.monotonic() < deadline, "nothing is answered any more"
        time.sleep(0.02)


def _connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)


def _ask(connection: http.client.HTTPConnection, question: Question) -> tuple[int, bytes]:
    connection.request("POST", question.path, question.body, dict(question.headers))
    response = connection.getresponse()
    return response.status, response.read()
