"""The span that is under way, and those below it.

A span is a part of a trace, with a beginning, an end and a parent. Where nobody traces there is
none, and everything in here does nothing. Which one is under way is kept in a context variable:
asyncio hands it on to the tasks of a request, and ``within`` to the threads that work for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["server", "client", "internal"]
Attributes = Mapping[str, str | int | bool]

_TRACE_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_CODE = re.compile(r"[a-z_]{1,64}")
_SAMPLED = 1


@dataclass(frozen=True)
class Caller:
    """The span that called, of another process: ids as hexadecimal digits."""

    trace_id: str
    span_id: str
    sampled: bool


class Span(Protocol):
    """Any thread may call it. What is noted leaves the service: never anything of a file or of an
    address."""

    @property
    def recorded(self) -> bool:
        """Whether it will be told, and those below it; else it only passes on that it is not."""
        ...

    @property
    def trace_id(self) -> str: ...

    @property
    def traceparent(self) -> str:
        """The header for what is called from in here (W3C Trace Context, 3.2)."""
        ...

    def child(self, name: str, attributes: Attributes, kind: Kind) -> Span: ...

    def rename(self, name: str) -> None: ...

    def note(self, attributes: Attributes) -> None: ...

    def fail(self, code: str) -> None:
        """Note what went wrong: a code or a type, never a message."""
        ...

    def end(self) -> None:
        """Only the first time counts."""
        ...


_UNDER_WAY: ContextVar[Span | None] = ContextVar("span", default=None)


def caller_of(traceparent: str) -> Caller | None:
    """Who a ``traceparent`` header names (W3C Trace Context, 3.2); None for what is none."""
    found = _TRACE_PARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    known = version != "ff" and not (version == "00" and more)
    if not (known and trace_id.strip("0") and span_id.strip("0")):
        return None
    return Caller(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def under_way() -> Span | None:
    """The span that is under way here, if somebody traces."""
    return _UNDER_WAY.get()


@contextmanager
def span(
    name: str, attributes: Attributes | None = None, kind: Kind = "internal"
) -> Iterator[None]:
    """What happens in here is a part of what is under way."""
    parent = _UNDER_WAY.get()
    if parent is None:
        yield
        return
    with ended(parent.child(name, attributes or {}, kind)):
        yield


@contextmanager
def ended(begun: Span | None) -> Iterator[None]:
    """``begun`` is under way in here, and ends with it, well or not."""
    with within(begun):
        try:
            yield
        except BaseException as error:
            if begun is not None:
                begun.fail(_code_of(error))
            raise
        finally:
            if begun is not None:
                begun.end()


@contextmanager
def within(begun: Span | None) -> Iterator[None]:
    """``begun`` is under way in here; it does not end."""
    before = _UNDER_WAY.set(begun)
    try:
        yield
    finally:
        _UNDER_WAY.reset(before)


def waiting(name: str) -> Callable[[], None]:
    """Begin to wait, for something that may begin on another thread; call what comes back when it
    is over, as often as you like."""
    parent = _UNDER_WAY.get()
    return parent.child(name, {}, "internal").end if parent is not None else _nothing


def note(attributes: Attributes) -> None:
    """Note something of the span that is under way."""
    begun = _UNDER_WAY.get()
    if begun is not None:
        begun.note(attributes)


def _code_of(error: BaseException) -> str:
    """The stable code of a refusal of ours, else the type: messages may quote a file."""
    ours = type(error).__module__.startswith("app.")
    code = getattr(error, "code", None) if ours else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else type(error).__name__


def _nothing() -> None:
    pass
