"""The store is followed: what is new in it and good takes its place between two requests."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from app import logs
from app.api.audit import swap_record
from app.api.drift import publish
from app.audit.log import AuditError, Log
from app.inference.models import Lineup, Models
from app.inference.pipeline import Pipeline
from app.inference.store import Store
from app.memory import give_back

_LOG = logging.getLogger("mammoseq")


@asynccontextmanager
async def following(
    store: Store, models: Models, log: Log | None, seconds: float
) -> AsyncIterator[None]:
    """While in here, look at the store every so many ``seconds``; 0 is never."""
    task = asyncio.create_task(_follow(store, models, log, seconds)) if seconds else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _follow(store: Store, models: Models, log: Log | None, seconds: float) -> None:
    leaving: list[weakref.ref[Pipeline]] = []
    while True:
        await asyncio.sleep(seconds)
        try:
            leaving += await _look(store, models, log)
        except Exception as error:  # the next look may be better; what serves goes on
            _LOG.error("store_not_followed", extra={"fields": {"at": logs.place_of(error)}})
        still = [model for model in leaving if model() is not None]
        if len(still) < len(leaving):  # the last request that used it has ended
            await asyncio.to_thread(give_back)
        leaving = still


async def _look(store: Store, models: Models, log: Log | None) -> list[weakref.ref[Pipeline]]:
    """Returns the models that were replaced."""
    before, all_before = models.lineup, models.all
    now = await asyncio.to_thread(store.followed, before)
    changes = _changes(before, now)
    if not changes:
        return []
    if log is not None:
        try:
            await log.write(swap_record([(role, a.bundle, b.bundle) for role, a, b in changes]))
        except AuditError:  # told by the log; nothing is swapped that is not recorded
            return []
    models.swap(now)
    for role, old, new in changes:
        logs.event("model_swapped", {"role": role, "model": new.model, "replaced": old.model})
    gone = [old for old in all_before if old not in models.all]
    for old in gone:
        publish(old, loaded=False)
    for new in models.all:
        publish(new)
    return [weakref.ref(old) for old in gone]


def _changes(before: Lineup, now: Lineup) -> list[tuple[str, Pipeline, Pipeline]]:
    """The roles that change hands, with who had them and who gets them."""
    pairs = [
        ("default", before.default, now.default),
        *(("on_request", *pair) for pair in zip(before.others, now.others, strict=True)),
        ("canary", before.canary, now.canary),
        ("shadow", before.shadow, now.shadow),
    ]
    return [(role, old, new) for role, old, new in pairs if old and new and old is not new]
