"""The audit log: what becomes of its chain under several writers, rotation, a full disk and hands
that change it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.audit.chain import Chain, hash_of
from tests.serving import REPOSITORY

WRITER = """
import sys
from pathlib import Path
from app.audit.chain import Chain
log, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
chain = Chain(log, Path(f"{log}.last"))
for number in range(count):
    chain.append([{"writer": name, "number": number}])
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def chain_of(log: Path) -> Chain:
    return Chain(log, log.with_name(f"{log.name}.last"))


def verify(*files: Path, holds: str | None = None) -> tuple[int, str]:
    """Exit status of the command, and what it printed."""
    options = ["--holds", holds] if holds else []
    ended = subprocess.run(
        [sys.executable, "-m", "app.audit", "verify", *map(str, files), *options],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


def lines_of(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines(keepends=True)


def written(log: Path, count: int = 6) -> list[bytes]:
    """A log of so many lines, the first of which says that it begins."""
    chain = chain_of(log)
    for number in range(count - 1):
        chain.append([{"number": number}])
    return lines_of(log)


def test_every_line_names_the_hash_of_the_line_before(log: Path) -> None:
    lines = written(log)
    records = [json.loads(line) for line in lines]
    assert records[0] == {"audit": 1, "event": "begin", "previous": None}
    assert [record["previous"] for record in records[1:]] == [hash_of(line) for line in lines[:-1]]
    status, printed = verify(log)
    assert status == 0
    assert f"6 lines, from nothing to {hash_of(lines[-1])}" in printed


def edited(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b'"number":1', b'"number":7'), *lines[3:]]


def without_the_third(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], *lines[3:]]


def with_one_put_in(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[2], *lines[3:]]


def reordered(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[3], lines[2], *lines[4:]]


def cut_short(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1][:-1]]


def with_a_line_of_others(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], b"INFO something else\n", *lines[2:]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edited, "line 4 does not follow line 3"),
        (without_the_third, "line 3 does not follow line 2"),
        (with_one_put_in, "line 4 does not follow line 3"),
        (reordered, "line 3 does not follow line 2"),
        (cut_short, "line 6 is cut short"),
        (with_a_line_of_others, "line 3 is no record"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_changed_log_is_found_and_its_first_broken_line_is_told(
    log: Path, change: Callable[[list[bytes]], list[bytes]], told: str
) -> None:
    log.write_bytes(b"".join(change(written(log))))
    status, printed = verify(log)
    assert status == 1
    assert told in printed


def test_lines_missing_at_the_end_are_found_by_a_hash_that_was_noted(log: Path) -> None:
    lines = written(log)
    noted = hash_of(lines[-1])
    assert verify(log, holds=noted)[0] == 0
    log.write_bytes(b"".join(lines[:-1]))
    assert verify(log)[0] == 0
    assert noted not in verify(log)[1]
    assert verify(log, holds=noted) == (1, verify(log)[1] + f"no line has the hash {noted}\n")


def test_lines_taken_from_the_end_are_told_once_another_is_written(log: Path) -> None:
    lines = written(log)
    log.write_bytes(b"".join(lines[:-2]))
    chain_of(log).append([{"number": 9}])
    status, printed = verify(log)
    assert status == 1
    assert "line 5 does not follow line 4" in printed


def test_a_new_file_begins_with_the_last_hash_of_the_one_that_was_moved_away(log: Path) -> None:
    chain = chain_of(log)
    chain.append([{"number": 0}])
    old = log.rename(log.with_suffix(".1"))
    chain.append([{"number": 1}])
    begin, *_ = map(json.loads, lines_of(log))
    assert begin == {"audit": 1, "event": "begin", "previous": hash_of(lines_of(old)[-1])}
    assert verify(old, log)[0] == 0
    assert "line 1 does not follow the file before" in verify(log, old)[1]


def test_so_does_one_that_was_copied_and_emptied_or_begun_after_a_restart(log: Path) -> None:
    written(log)
    old = log.with_suffix(".1")
    old.write_bytes(log.read_bytes())
    os.truncate(log, 0)
    assert verify(old, log)[0] == 0
    chain_of(log).append([{"number": 9}])
    assert verify(old, log)[0] == 0


def test_several_processes_write_one_chain_while_it_is_rotated(log: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(log), name, "300"], cwd=REPOSITORY, env=os.environ
        )
        for name in "abc"
    ]
    while not log.exists():
        assert writers[0].poll() is None
    old = log.rename(log.with_suffix(".1"))
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    assert verify(old, log)[0] == 0
    records = [json.loads(line) for line in lines_of(old) + lines_of(log)]
    for name in "abc":
        mine = [record["number"] for record in records if record.get("writer") == name]
        assert mine == list(range(300))


def test_what_a_killed_writer_left_half_written_is_cut_off_and_the_chain_goes_on(
    log: Path,
) -> None:
    whole = written(log)
    with log.open("ab") as opened:
        opened.write(b'{"audit":1,"number":')
    chain_of(log).append([{"number": 9}])
    assert lines_of(log)[:-1] == whole
    assert verify(log)[0] == 0


def test_a_writer_that_was_killed_before_it_kept_the_last_hash_breaks_nothing(log: Path) -> None:
    chain = chain_of(log)
    chain.append([{"number": 0}])
    kept = log.with_name(f"{log.name}.last")
    before = kept.read_bytes()
    chain.append([{"number": 1, "long": "x" * 200_000}])
    kept.write_bytes(before)
    chain_of(log).append([{"number": 2}])
    assert verify(log)[0] == 0
    kept.unlink()
    chain_of(log).append([{"number": 3}])
    assert verify(log)[0] == 0


def test_on_a_full_disk_nothing_is_half_written_and_the_chain_goes_on_later(log: Path) -> None:
    """The limit on the size of a file is, to a writer, a disk that is full after so many bytes."""
    lines = written(log)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = log.stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, before[1]))
        with pytest.raises(OSError, match="too large"):
            chain_of(log).append([{"number": 9}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert lines_of(log) == lines
    chain_of(log).append([{"number": 10}])
    assert verify(log)[0] == 0


def test_others_may_not_read_or_change_the_log(log: Path) -> None:
    written(log)
    assert log.stat().st_mode & 0o027 == 0


def test_what_is_no_log_is_told_without_a_traceback(tmp_path: Path) -> None:
    for name, content in {
        "empty": b"",
        "binary": b"\xff\xfe\n",
        "list": b"[]\n",
        "deep": b"[" * 100_000 + b"\n",
    }.items():
        (tmp_path / name).write_bytes(content)
    assert verify(tmp_path / "empty")[0] == 0
    for name in ("binary", "list", "deep", "not-there"):
        status, printed = verify(tmp_path / name)
        assert status == 1
        assert "Traceback" not in printed
