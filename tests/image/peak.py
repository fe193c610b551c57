"""``python -m tests.image.peak IMAGE``: start-up and memory of the image under the limits of
``k8s/base/deployment.yaml``, as root, on cgroups of version 1 or 2.

Memory is the most that the container's cgroup ever held, so it has the files in the page cache,
too. Answers are counted by status: 429 is the service's own protection.
"""

from __future__ import annotations

import http.client
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.image.containers import Container, configure, serving_in
from tests.pictures import breast, dicom, png, sixteen_bit
from tests.serving import free_port


def peak_mib(container: Container) -> int:
    show = "cat /sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes"
    told = container.inside("sh", "-c", f"{show} 2> /dev/null || true")
    return int(re.findall("[0-9]+", told)[0]) >> 20


def statuses(port: int, body: bytes, *, clients: int, requests: int) -> Counter[int]:
    """Of so many clients at a time, each with so many requests."""
    counted: Counter[int] = Counter()

    def ask() -> None:
        for _ in range(requests):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
            connection.request("POST", "/predict?gate=warn", body)
            response = connection.getresponse()
            response.read()
            counted[response.status] += 1

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counted


def main(image: str) -> None:
    loads = {
        "0.2 Mpx, 8 clients": (png(breast()), 8, 20),
        "12 Mpx, 24 MB, 8 clients": (dicom(sixteen_bit(breast(4000, 3000))), 8, 4),
        "48 Mpx, 96 MB, 2 clients": (dicom(sixteen_bit(breast(8000, 6000))), 2, 2),
        "48 Mpx, 96 MB, 16 clients": (dicom(sixteen_bit(breast(8000, 6000))), 16, 2),
    }
    port, start = free_port(), time.monotonic()
    with serving_in(
        image, "--network=host", host="127.0.0.1", port=port, metrics_port=free_port(),
        access="open",
    ) as container:  # fmt: skip
        print(f"ready after {time.monotonic() - start:.1f} s, peak {peak_mib(container)} MiB")
        for name, (body, clients, requests) in loads.items():
            counted = statuses(port, body, clients=clients, requests=requests)
            print(f"{name}: {dict(counted)}, peak {peak_mib(container)} MiB", flush=True)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory() as folder:
        configure(environment, Path(folder))
        main(sys.argv[1])
