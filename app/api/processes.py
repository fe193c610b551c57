"""Several processes behind one port: a process keeps about four cores busy, then its interpreter
lock holds it up (``docs/performance.md``).

uvicorn supervises: it opens the port, starts the processes (``app.api.server.application``),
starts another for one that dies, and ends all at SIGTERM. The processes share a private folder,
named in the environment, for their metrics and for what only one of them must do.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import socket
import threading
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app.settings import Settings

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the name that prometheus_client looks for at its import
_IN_MEMORY = Path("/dev/shm")  # nosec B108: a private folder is made in it
_LOOK_SECONDS = 0.1  # how often the supervisor looks whether all have ended
GRACE_SECONDS = 45  # for requests under way at SIGTERM; k8s gives more before it kills


def supervise(settings: Settings) -> int:
    """Run the service in processes of its own until SIGTERM; returns the exit status."""
    # Each reads the settings again, and must not look at the machine again
    os.environ["MAMMOSEQ_PROCESSES"] = str(settings.processes)
    os.environ["MAMMOSEQ_WORKERS"] = str(settings.workers)
    os.environ["MAMMOSEQ_LOG_FORMAT"] = settings.log_format
    if settings.session_secret is None:  # a session of one is a session of all
        os.environ["MAMMOSEQ_SESSION_SECRET"] = secrets.token_hex()
    with _private_folder() as folder:
        os.environ[_FOLDER] = folder
        config = uvicorn.Config(
            "app.api.server:application",
            factory=True,
            workers=settings.processes,
            loop="app.api.balance:BalancedLoop",
            http="app.api.balance:CountedProtocol",
            **server_options(settings),
        )
        supervisor = _Supervisor(config, [config.bind_socket()])
        supervisor.run()
    refused = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
    return 1 if refused else 0


class _Supervisor(Multiprocess):
    def init_processes(self) -> None:
        super().init_processes()
        self._let_go_of_their_ends()

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        self._let_go_of_their_ends()

    def _let_go_of_their_ends(self) -> None:
        """Leave to each process its end of the pipe that it is asked by whether it is well. While
        the supervisor held that too, one that ended without an answer, as at a start that is
        refused, was waited for until ``timeout_worker_healthcheck``."""
        for process in self.processes:
            process.child_conn.close()

    def terminate_all(self) -> None:
        """Also let go of the port: else connections would wait there that nobody accepts."""
        super().terminate_all()
        for listener in self.sockets:
            listener.close()

    def join_all(self) -> None:
        """Meanwhile a second signal is for them, too: it ends what they wait for."""
        while any(process.process.is_alive() for process in self.processes):
            if self.signal_queue:
                self.signal_queue.clear()
                super().terminate_all()
            time.sleep(_LOOK_SECONDS)
        super().join_all()


class PortError(Exception):
    """A port that the settings name cannot be had."""


def check_listening(settings: Settings) -> None:
    """Raise ``PortError`` if nothing can listen where the service should. uvicorn would find out
    only once all is loaded, and end with a status of its own."""
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        faults = [_fault(family, address) for family, *_, address in found]
    except OSError as error:  # there is no such host
        faults = [error]
    reasons = [fault.strerror for fault in faults if fault is not None]
    if len(reasons) == len(faults):  # of a host with several addresses one may be off
        raise PortError(f"MAMMOSEQ_HOST {host}, MAMMOSEQ_PORT {port}: {reasons[0]}")


def _fault(family: socket.AddressFamily, address: Any) -> OSError | None:
    """Why an address cannot be listened on; None if it can."""
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def server_options(settings: Settings) -> dict[str, Any]:
    """Of uvicorn, for one process or several."""
    return {
        "host": settings.host,
        "port": settings.port,
        "access_log": False,  # Observe writes one; a path or query may hold anything
        "log_config": None,  # app.logs has it
        "timeout_graceful_shutdown": GRACE_SECONDS,
        "server_header": False,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": settings.trusted_proxies,
        # answered only once the imports are done, which takes longer on a cold disk
        "timeout_worker_healthcheck": 30,
    }


def shared_folder() -> Path:
    """Where the processes find what they share; a lone one has such a folder, too."""
    return Path(os.environ.get(_FOLDER) or _own_folder().name)


def first_to(task: str) -> bool:
    """Whether this process is the first of the service to do ``task``."""
    if _FOLDER not in os.environ:
        return True
    try:
        (shared_folder() / task).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@cache
def _own_folder() -> TemporaryDirectory[str]:
    """Removed when this process ends."""
    return _private_folder()


def _private_folder() -> TemporaryDirectory[str]:
    in_memory = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    return TemporaryDirectory(prefix="mammoseq-", dir=in_memory)


def end_with_supervisor() -> None:
    """End this process as SIGTERM does when its supervisor is no more, however that came."""

    def watch() -> None:
        supervisor = multiprocessing.parent_process()
        if supervisor is not None:
            supervisor.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor", daemon=True).start()
