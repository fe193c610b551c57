"""Records on their way from the event loop to the disk."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from app.audit.chain import Chain
from app.audit.log import AuditError, Log
from app.audit.verify import verified

FULL = Path("/dev/full")  # every write to it fails as on a full disk


def test_what_is_written_at_once_is_all_there_and_in_one_chain(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    log = Log(Chain(file, tmp_path / "last"), must_hold=True)

    async def write() -> None:
        await asyncio.gather(*(log.write({"number": number}) for number in range(200)))

    asyncio.run(write())
    lines = file.read_bytes().splitlines(keepends=True)
    verified(lines)
    assert [json.loads(line).get("number") for line in lines] == [None, *range(200)]


def test_a_full_disk_is_told_once_and_raised_unless_one_may_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain = Chain(FULL, tmp_path / "last")
    with caplog.at_level(logging.ERROR):
        log = Log(chain, must_hold=True)
        for _ in range(2):
            with pytest.raises(AuditError, match="No space left"):
                asyncio.run(log.write({}))
        asyncio.run(Log(chain, must_hold=False).write({}))
    assert len(caplog.records) == 2  # of each log, one


def test_who_no_longer_waits_keeps_nobody_from_being_recorded(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    log = Log(Chain(file, tmp_path / "last"), must_hold=True)

    async def write() -> None:
        left = asyncio.ensure_future(log.write({"number": 1}))
        stays = asyncio.ensure_future(log.write({"number": 2}))
        await asyncio.sleep(0)
        left.cancel()
        await stays

    asyncio.run(write())
    asyncio.run(log.write({"number": 3}))
    numbers = [json.loads(line).get("number") for line in file.read_bytes().splitlines()]
    assert numbers == [None, 1, 2, 3]
