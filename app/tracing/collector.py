"""Spans -> a collector, by OTLP over HTTP. All that there is of OpenTelemetry is in here.

Ended spans wait for a thread that sends them in batches. Nobody waits for it: what cannot be sent,
and what is too much while the collector is away, is counted and dropped.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from app.tracing.spans import Attributes, Caller, Kind, Span

Result = Literal["exported", "failed", "dropped"]

_MOST_WAITING = 4096  # spans; some kB each
_BATCH = 512  # spans
_PAUSE_SECONDS = 1.0
_SEND_SECONDS = 5.0  # for a batch, with its retries
_LAST_SECONDS = 5.0  # for what waits at the end
_TELL_SECONDS = 60.0
_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_EXPORTERS_LOG = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Collector:
    """Where traces go, until it is stopped: ``url`` with its path. ``process`` are the attributes
    of who tells, such as ``service.name``; ``told`` learns what became of how many spans, on any
    thread.

    A process needs one of its own. Further attributes, the share of traces that is kept, headers
    and certificates are read from OpenTelemetry's own variables (``OTEL_*``).
    """

    def __init__(
        self, url: str, process: Mapping[str, str], told: Callable[[Result, int], None]
    ) -> None:
        session = requests.Session()
        session.trust_env = False  # no proxies: settings have one home
        exporter = OTLPSpanExporter(url, timeout=_SEND_SECONDS, session=session)
        self._batches = _Batches(exporter, told)
        resource = Resource.create({**process, "service.instance.id": uuid.uuid4().hex})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(self._batches)
        self._tracer = provider.get_tracer("mammoseq")
        logging.getLogger(_EXPORTERS_LOG).addFilter(_Seldom())

    def begin(self, name: str, caller: Caller | None, kind: Kind) -> Span:
        """The first span of this process in a trace."""
        parent = Context() if caller is None else _within(caller)
        return _Span(self._tracer, self._tracer.start_span(name, parent, _KINDS[kind]))

    def stop(self) -> None:
        """Send what waits, as far as a few seconds allow."""
        self._batches.shutdown()


class _Span(Span):
    def __init__(self, tracer: Tracer, span: OtelSpan) -> None:
        self._tracer = tracer
        self._span = span

    @property
    def recorded(self) -> bool:
        return self._span.is_recording()

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def child(self, name: str, attributes: Attributes, kind: Kind) -> Span:
        parent = set_span_in_context(self._span, Context())
        return _Span(self._tracer, self._tracer.start_span(name, parent, _KINDS[kind], attributes))

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, code: str) -> None:
        self._span.set_attribute("error.type", code)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()


def _within(caller: Caller) -> Context:
    """Without the caller's ``tracestate``, which may hold anything."""
    flags = TraceFlags(TraceFlags.SAMPLED if caller.sampled else TraceFlags.DEFAULT)
    context = SpanContext(int(caller.trace_id, 16), int(caller.span_id, 16), True, flags)
    return set_span_in_context(NonRecordingSpan(context), Context())


class _Batches(SpanProcessor):
    """As OpenTelemetry's own, which cannot say how much it drops, nor be stopped within a time."""

    def __init__(self, exporter: SpanExporter, told: Callable[[Result, int], None]) -> None:
        self._exporter = exporter
        self._told = told
        self._waiting: deque[ReadableSpan] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        # Threads that come at the same moment may pass the limit by as many: it need not be sharp
        if len(self._waiting) >= _MOST_WAITING:
            self._told("dropped", 1)
            return
        self._waiting.append(span)
        if len(self._waiting) >= _BATCH:
            self._wake.set()

    def shutdown(self) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(_LAST_SECONDS)
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return False  # nobody asks for it

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(_PAUSE_SECONDS)
            self._wake.clear()
            self._send()
        self._send()  # what came in the meantime

    def _send(self) -> None:
        left = len(self._waiting)  # what comes meanwhile is for the next time
        while left:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, left))]
            left -= len(batch)
            sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
            self._told("exported" if sent else "failed", len(batch))


class _Seldom(logging.Filter):
    """While the collector is away, its exporter would say so every second."""

    def __init__(self) -> None:
        super().__init__()
        self._again = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._again:
            return False
        self._again = now + _TELL_SECONDS
        return True
