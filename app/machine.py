"""What the machine leaves to this service: cores, memory, a GPU; and how many processes that is.

Inside a container the host's cores and memory are visible, but the cgroup's limits hold.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")

_CORES_A_PROCESS = 4  # that one interpreter lock keeps busy (docs/performance.md)
_BYTES_A_PROCESS = 512 * 2**20  # the model, and images under way


def available_cores(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Cores this process may use: its affinity, cut by the CPU quotas of its cgroups."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limits = [float(cores or 1)]
    for folder in _folders(cgroups, "cpu", membership):
        match _words(folder / "cpu.max"):  # version 2
            case [quota, period] if quota != "max":
                limits.append(int(quota) / int(period))
        match _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us"):
            case [quota], [period] if int(quota) > 0:  # version 1; -1 is none
                limits.append(int(quota) / int(period))
    return max(1, math.floor(min(limits)))


def available_memory(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Bytes this process may use: the machine's, cut by the limits of its cgroups."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for folder in _folders(cgroups, "memory", membership):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limits += [int(word) for word in _words(folder / name) if word != "max"]
    return min(limits)


def visible_gpus(devices: Path = Path("/dev")) -> int:
    """How many NVIDIA GPUs this process can see."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return 0
    return sum(1 for _ in devices.glob("nvidia[0-9]*"))


def has_gpu() -> bool:
    return visible_gpus() > 0


def processes_for(cores: int, memory: int) -> int:
    """One up to 5 cores, beyond that about one for 4, as far as ``memory`` (bytes) goes."""
    return max(1, min(round(cores / _CORES_A_PROCESS), memory // _BYTES_A_PROCESS))


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _folders(cgroups: Path, controller: str, membership: Path) -> Iterator[Path]:
    """The cgroups that a limit may be in: this process' own and those around it (cgroups(7))."""
    yield from (cgroups, cgroups / controller)
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" or controller in controllers.split(","):
            root = cgroups if number == "0" else cgroups / controller
            own = Path(path.strip("/"))
            yield from (root / part for part in (own, *own.parents))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
