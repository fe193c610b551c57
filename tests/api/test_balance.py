"""How processes that accept on one socket share the connections out. Two that share a table can be
in one process, too."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.balance import Connections, CountedProtocol
from app.api.processes import shared_folder


def test_surplus_is_the_difference_to_the_process_with_the_fewest(tmp_path: Path) -> None:
    one, two, three = (Connections(tmp_path / "connections") for _ in range(3))
    assert one.surplus() == 0
    one.add(3)
    two.add(1)
    assert [of.surplus() for of in (one, two, three)] == [3, 1, 0]
    three.add(2)
    one.add(-2)
    assert [of.surplus() for of in (one, two, three)] == [0, 0, 1]


def test_process_takes_the_place_of_one_that_is_no_more(tmp_path: Path) -> None:
    """Else its count would stay, and be the fewest or the most for ever."""
    script = (
        "import sys; from pathlib import Path; from app.api.balance import Connections\n"
        "Connections(Path(sys.argv[1])).add(5)"
    )
    file = tmp_path / "connections"
    subprocess.run([sys.executable, "-c", script, str(file)], check=True)
    new = Connections(file)
    new.add(1)
    assert new.surplus() == 0
    assert Connections(file).surplus() == 0


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(b"here")(scope, receive, send)


@pytest.mark.parametrize("more_than_the_other", [0, 1000])
def test_connection_is_accepted_also_if_a_process_with_fewer_never_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more_than_the_other: int
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    stalled = Connections(shared_folder() / "connections")
    config = uvicorn.Config(
        _application,
        loop="app.api.balance:BalancedLoop",
        http=CountedProtocol,
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            CountedProtocol.connections_of_all.add(more_than_the_other)
            clients = [stack.enter_context(httpx.Client(base_url=address)) for _ in range(3)]
            assert [client.get("/").text for client in clients] == ["here"] * 3
            assert CountedProtocol.connections_of_all.surplus() == more_than_the_other + 3
            assert stalled.surplus() == 0
        finally:
            server.should_exit = True
            thread.join(30)
    stalled.add(5)
    assert stalled.surplus() == 0, "what has ended is no process with fewer"
