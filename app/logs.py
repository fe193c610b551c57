"""The log: one line of JSON, or of text for people, for each thing that happened.

Nothing of a file, a path or a query comes in: what is logged are events with fields that the caller
of this module names, and exceptions by their type and place, never by their message.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError

LogFormat = Literal["json", "text"]

_LOG = logging.getLogger("mammoseq")
_OWN = "mammoseq"
_FRAMES = 4


def configure(form: LogFormat) -> None:
    """Log to stderr in this form, what libraries log included."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def off_terminal() -> LogFormat:
    """JSON unless somebody looks on."""
    return "text" if sys.stderr.isatty() else "json"


def event(name: str, fields: Mapping[str, object], level: int = logging.INFO) -> None:
    """Log that something happened; fields that are None are left out."""
    _LOG.log(level, name, extra={"fields": fields})


def at_start(form: LogFormat, name: str, fields: Mapping[str, object], text: str) -> None:
    """What is told once at the start: an event in JSON, else ``text`` as it is, on stdout."""
    if form == "json":
        event(name, fields)
    else:
        print(text, flush=True)


def wrong_settings(prefix: str, error: ValidationError) -> None:
    """Tell which variables keep the service from starting, in the form that they ask for."""
    wanted = os.environ.get(f"{prefix}LOG_FORMAT", off_terminal())
    form: LogFormat = "json" if wanted == "json" else "text"
    configure(form)
    for fault in error.errors():
        if fault["type"] != "default_factory_not_called":  # only because of another fault
            name = f"{prefix}{'.'.join(map(str, fault['loc']))}".upper()
            refused(form, f"{name}: {fault['msg']}")


def refused(form: LogFormat, why: str) -> None:
    """The last thing that is told where the service must not start."""
    if form == "json":
        _LOG.error("refused to start", extra={"fields": {"why": why}})
    else:
        print(f"refused to start: {why}", file=sys.stderr, flush=True)


def place_of(error: BaseException) -> str:
    """Where an exception was raised, innermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(frames[-_FRAMES:]))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if record.name != _OWN:
            line["logger"] = record.name
        for name, value in _fields(record).items():
            if value is not None:
                line[name] = value
        return json.dumps(line)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname} {record.getMessage()}"
        pairs = (f" {name}={value}" for name, value in _fields(record).items() if value is not None)
        return line + "".join(pairs)


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return fields
    return {**fields, "type": type(error).__name__, "at": place_of(error)}
