"""A real nginx in front of several services, with files of its own in a folder of the test. Bodies
stay in its memory: as root it works as another user, who may not write there."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.real_parts import require
from tests.serving import free_port

_UP_SECONDS = 60

# It has no active probes: what fails is passed on to another, also a POST, since to score an image
# changes nothing, and is not asked again for a second
_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 256m;
    client_body_buffer_size 1m;
    proxy_max_temp_file_size 0;
    upstream replicas {{
        least_conn;
{servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://replicas;
            proxy_set_header Host $host;
            proxy_connect_timeout 2s;
            proxy_next_upstream error timeout non_idempotent;
        }}
    }}
}}
"""


@contextmanager
def running_nginx(ports: Sequence[int], folder: Path) -> Iterator[int]:
    """Start nginx before services on these ports; its own port."""
    program, port = require("nginx"), free_port()
    servers = "\n".join(
        f"        server 127.0.0.1:{place} max_fails=1 fail_timeout=1s;" for place in ports
    )
    file = folder / "nginx.conf"
    file.write_text(_CONFIGURATION.format(folder=folder, port=port, servers=servers))
    process = subprocess.Popen([program, "-e", str(folder / "error.log"), "-c", str(file)])
    try:
        deadline = time.monotonic() + _UP_SECONDS
        while not _is_listening(port):
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
