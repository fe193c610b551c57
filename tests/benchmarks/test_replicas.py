"""A real haproxy before two servers: it finds them, drains one without a failure, takes it back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from benchmarks import openloop, replicas
from benchmarks.balancer import Balancer, BalancerError, running_balancer
from benchmarks.inputs import synthetic_files
from benchmarks.openloop import Load
from tests.real_parts import require
from tests.serving import free_port, serving_here


class Replica:
    """Answers everything, and counts predictions."""

    def __init__(self) -> None:
        self.predictions = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.predictions += scope["path"] == "/predict"
            await PlainTextResponse("")(scope, receive, send)


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[Balancer, dict[str, Replica]]]:
    require("haproxy")
    servers = {"one": Replica(), "two": Replica()}
    with ExitStack() as stack:
        clients = {name: stack.enter_context(serving_here(s)) for name, s in servers.items()}
        ports = {name: client.base_url.port or 80 for name, client in clients.items()}
        yield stack.enter_context(running_balancer(ports)), servers


def offer(balancer: Balancer, servers: dict[str, Replica]) -> tuple[set[int], dict[str, int]]:
    """Statuses of a burst of requests, and how many each server got of it."""
    request = openloop.single("/predict", synthetic_files(full_size=False)["jpeg-640"], {})
    before = {name: server.predictions for name, server in servers.items()}
    loads = {"single": Load(request, 200.0)}
    offered = openloop.offer(balancer.port, os.getpid(), loads, seconds=0.3)
    got = {name: server.predictions - before[name] for name, server in servers.items()}
    return {outcome.status for outcome in offered.outcomes}, got


def test_drained_replica_gets_nothing_until_it_is_taken_back(
    behind: tuple[Balancer, dict[str, Replica]],
) -> None:
    balancer, servers = behind
    statuses, got = offer(balancer, servers)
    assert statuses == {200}
    assert min(got.values()) > 0
    balancer.drain("one")
    statuses, got = offer(balancer, servers)
    assert statuses == {200}
    assert got["one"] == 0
    balancer.resume("one")
    statuses, got = offer(balancer, servers)
    assert statuses == {200}
    assert min(got.values()) > 0


def test_balancer_refuses_to_start_before_a_replica_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require("haproxy")
    monkeypatch.setattr("benchmarks.balancer._UP_SECONDS", 2.0)
    with (
        pytest.raises(BalancerError, match="haproxy says of one: DOWN"),
        running_balancer({"one": free_port()}),
    ):
        pass


def test_without_haproxy_it_says_so_and_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replicas, "program", lambda: None)
    assert replicas.main([]) == 2
    assert "apt install haproxy" in capsys.readouterr().err
