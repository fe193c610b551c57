"""What the machine leaves to the service, and how many processes and threads that makes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app import settings
from app.machine import available_cores, available_memory, processes_for, visible_gpus
from app.settings import Settings

GIB = 2**30
CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MAMMOSEQ_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("cores", "processes"),
    [(1, 1), (2, 1), (4, 1), (5, 1), (6, 2), (8, 2), (10, 2), (12, 3), (16, 4), (32, 8), (64, 16)],
)
def test_one_process_up_to_five_cores_and_then_one_for_four(cores: int, processes: int) -> None:
    assert processes_for(cores, 1024 * GIB) == processes


@pytest.mark.parametrize(("gib", "processes"), [(0.25, 1), (1, 2), (2, 4), (8, 16), (64, 16)])
def test_each_process_has_half_a_gibibyte_at_least(gib: float, processes: int) -> None:
    assert processes_for(64, int(gib * GIB)) == processes


@pytest.mark.parametrize(
    ("device", "gpu", "cores", "processes", "workers"),
    [
        ("auto", False, 2, 1, 2),
        ("auto", False, 5, 1, 5),
        ("auto", False, 6, 2, 3),
        ("auto", False, 18, 4, 5),
        ("cpu", True, 16, 4, 4),
        ("auto", True, 16, 1, 16),
        ("cuda", True, 16, 1, 16),
    ],
)
def test_processes_and_their_threads_come_from_the_cores_unless_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gpu: bool,
    cores: int,
    processes: int,
    workers: int,
) -> None:
    monkeypatch.setattr(settings, "available_cores", lambda: cores)
    monkeypatch.setattr(settings, "available_memory", lambda: 64 * GIB)
    monkeypatch.setattr(settings, "has_gpu", lambda: gpu)
    monkeypatch.setenv("MAMMOSEQ_DEVICE", device)
    chosen = Settings()
    assert (chosen.processes, chosen.workers) == (processes, workers)


def test_what_is_set_is_taken_and_threads_follow_the_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "available_cores", lambda: 16)
    assert Settings(processes=3).workers == 6
    assert (Settings(processes=3, workers=1).processes, Settings(workers=7).workers) == (3, 7)
    assert Settings(device="cuda", processes=2).processes == 2


def test_limits_of_the_service_are_shared_out_rounded_up() -> None:
    assert Settings(processes=3).share_of(64) == 22
    assert Settings(processes=1).share_of(64) == 64


# cgroups (cgroups(7)); the affinity of this process is the most that can come out


def written(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content + "\n")
    return folder


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", CORES),
        ("100000 100000", 1),
        ("199999 100000", 1),
        ("10000 100000", 1),
        (f"{1000 * CORES}00 100", CORES),
        ("", CORES),
    ],
)
def test_cores_are_cut_by_the_quota_of_version_2_rounded_down(
    tmp_path: Path, quota: str, cores: int
) -> None:
    written(tmp_path, cpu__max=quota)
    assert available_cores(tmp_path, tmp_path / "none") == cores


@pytest.mark.parametrize(
    ("quota", "cores"), [("-1", CORES), ("100000", 1), ("199999", 1), ("50000", 1)]
)
def test_cores_are_cut_by_the_quota_of_version_1(tmp_path: Path, quota: str, cores: int) -> None:
    written(tmp_path / "cpu", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    assert available_cores(tmp_path, tmp_path / "none") == cores


@pytest.mark.skipif(CORES < 2, reason="one core cannot be cut")
@pytest.mark.parametrize(
    ("line", "folder", "files"),
    [
        ("0::/a.slice/b.service", "a.slice", {"cpu__max": "100000 100000"}),
        ("0::/a.slice/b.service", "a.slice/b.service", {"cpu__max": "100000 100000"}),
        (
            "4:cpu,cpuacct:/docker/x",
            "cpu/docker/x",
            {"cpu__cfs_quota_us": "100000", "cpu__cfs_period_us": "100000"},
        ),
    ],
)
def test_quota_of_the_own_cgroup_or_one_around_it_counts(
    tmp_path: Path, line: str, folder: str, files: dict[str, str]
) -> None:
    written(tmp_path / "cgroups" / folder, **files)
    (tmp_path / "membership").write_text(f"3:pids:/elsewhere\n{line}\n")
    assert available_cores(tmp_path / "cgroups", tmp_path / "membership") == 1


def test_memory_is_cut_by_the_limit_of_either_version(tmp_path: Path) -> None:
    whole = available_memory(tmp_path / "none", tmp_path / "none")
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    two = written(tmp_path / "two", memory__max=str(2**20))
    one = written(tmp_path / "one" / "memory", memory__limit_in_bytes=str(2**21)).parent
    unlimited = written(tmp_path / "unlimited", memory__max="max")
    assert [available_memory(folder, tmp_path) for folder in (two, one, unlimited)] == [
        2**20,
        2**21,
        whole,
    ]


def test_gpus_are_counted_unless_they_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "null"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(tmp_path) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus(tmp_path) == 0
