"""The audit log of a process: records from its event loop, written by a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from app import metrics
from app.audit.chain import Chain, Record, is_of_others
from app.settings import Settings

_LOG = logging.getLogger("mammoseq")
STDOUT = "-"


class AuditError(Exception):
    """The log that is asked for cannot be written."""


class Log:
    """What waits while the disk is busy is written together. Raises ``AuditError``."""

    def __init__(self, chain: Chain, *, must_hold: bool) -> None:
        """``must_hold`` says whether nothing may be answered without its record."""
        self._chain = chain
        self._must_hold = must_hold
        self._failing = False
        self._lock = threading.Lock()
        self._waiting: list[tuple[Record, Future[None]]] = []
        self._thread = ThreadPoolExecutor(1, "audit")

    def write_now(self, record: Record) -> None:
        """Write a record from where nothing waits. Raises ``AuditError``."""
        try:
            self._chain.append([_dated(record)])
        except OSError as error:
            raise AuditError(f"the audit log cannot be written: {error.strerror}") from None

    async def write(self, record: Record) -> None:
        """Returns when the record is on the disk, or has been given up where that is allowed.
        Raises ``AuditError``."""
        written: Future[None] = Future()
        with self._lock:
            self._waiting.append((_dated(record), written))
            first = len(self._waiting) == 1
        if first:
            self._thread.submit(self._write_waiting)
        await asyncio.wrap_future(written)

    def _write_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        awaited = [written for _, written in waiting if written.set_running_or_notify_cancel()]
        fault: AuditError | None = None
        try:
            self._chain.append([record for record, _ in waiting])
        except OSError as error:
            fault = AuditError(f"the audit log cannot be written: {error.strerror}")
            metrics.AUDIT_FAILURES.inc(len(waiting))
        if fault is not None and not self._failing:  # told once
            _LOG.error("%s", fault)
        self._failing = fault is not None
        for written in awaited:
            if fault is not None and self._must_hold:
                written.set_exception(fault)
            else:
                written.set_result(None)


def log_of(settings: Settings, shared_folder: Callable[[], Path]) -> Log | None:
    """The log that the settings ask for; None if they ask for none. Raises ``AuditError``."""
    named = settings.audit_file
    if named is None:
        return None
    try:
        if named == STDOUT:
            chain = Chain(None, shared_folder() / "audit.last")
        else:
            file = Path(named)
            if file.is_dir():  # as is an empty name
                raise AuditError(f"MAMMOSEQ_AUDIT_FILE: {file} is a folder")
            if is_of_others(file):
                raise AuditError(f"MAMMOSEQ_AUDIT_FILE: {file} is no audit log")
            chain = Chain(file, file.with_name(f"{file.name}.last"))
    except OSError as error:
        raise AuditError(f"MAMMOSEQ_AUDIT_FILE cannot be written: {error.strerror}") from None
    return Log(chain, must_hold=settings.audit_failure == "refuse")


def _dated(record: Record) -> Record:
    return {"at": datetime.now(UTC).isoformat(timespec="microseconds"), **record}
