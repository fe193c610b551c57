"""Three replicas behind a load balancer, while clients ask: one after the other is restarted, one
is killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.balancer import running_balancer
from tests.bridge.processes import Part, service, started
from tests.real_parts import require
from tests.survive.load import Question, learned, singles, under_load, wait_for_answers
from tests.survive.nginx import running_nginx

CLIENTS = 4
# haproxy probes every 0.2 s and twice in vain; nginx learns from a refused connection
DRAIN_SECONDS = 1
BALANCERS = ("haproxy", "nginx")


@dataclass(frozen=True)
class Site:
    replicas: list[Part]
    questions: list[Question]
    folder: Path

    @contextmanager
    def behind(self, balancer: str) -> Iterator[int]:
        """The port of a balancer before all replicas."""
        ports = [port_of(replica) for replica in self.replicas]
        if balancer == "nginx":
            with running_nginx(ports, self.folder) as port:
                yield port
        else:
            require("haproxy")
            with running_balancer({f"replica-{port}": port for port in ports}) as running:
                yield running.port


def port_of(replica: Part) -> int:
    return int(replica.url.rpartition(":")[2])


@pytest.fixture(scope="module")
def site(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    replicas = []
    for name in ("one", "two", "three"):
        (folder / name).mkdir()
        replicas.append(service(bundle_folder, folder / name, drain_seconds=DRAIN_SECONDS))
    with started(*replicas):
        yield Site(replicas, learned(port_of(replicas[0]), singles()), folder)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_rolling_restart_under_load_fails_no_request(site: Site, balancer: str) -> None:
    with site.behind(balancer) as port, under_load(port, site.questions, clients=CLIENTS) as load:
        wait_for_answers(load, CLIENTS)
        for replica in site.replicas:
            assert replica.terminate() == 0
            wait_for_answers(load, CLIENTS)
            replica.start()
            wait_for_answers(load, CLIENTS)
            time.sleep(0.5)  # until the balancer asks it again
    assert load.failed == []
    assert load.wrong == []


@pytest.mark.parametrize("balancer", BALANCERS)
def test_killed_replica_takes_only_its_requests_in_flight_with_it_and_none_is_answered_wrongly(
    site: Site, balancer: str
) -> None:
    killed = site.replicas[0]
    with site.behind(balancer) as port, under_load(port, site.questions, clients=CLIENTS) as load:
        wait_for_answers(load, 5 * CLIENTS)
        killed.kill()
        dead = time.monotonic()
        wait_for_answers(load, 10 * CLIENTS)
    killed.start()
    assert len(load.failed) <= CLIENTS
    assert all(outcome.sent <= dead for outcome in load.failed)
    assert load.wrong == []
    if balancer == "nginx":
        assert load.failed == [], "it has asked another replica"
