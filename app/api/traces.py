"""Where traces of the service go, and what the span of a request says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import Scope

from app import metrics
from app.inference.admission import Admitted
from app.settings import Settings
from app.tracing.spans import Caller, Span

if TYPE_CHECKING:
    from app.tracing.collector import Collector, Result

# RFC 9110 9, RFC 5789; others are the caller's own words
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}


class TracesError(Exception):
    """Traces are wanted, and what makes them is not installed."""


def collector_of(settings: Settings, version: str) -> Collector | None:
    """Where the settings want traces to go; None if nowhere. Raises ``TracesError``."""
    if settings.traces_url is None:
        return None
    try:
        from app.tracing.collector import Collector  # not above: an extra
    except ImportError:
        raise TracesError(
            "MAMMOSEQ_TRACES_URL needs the extra `tracing`: pip install 'mammoseq[tracing]'"
        ) from None
    process = {"service.name": "mammoseq", "service.version": version}
    return Collector(settings.traces_url, process, _count)


def begun(collector: Collector, scope: Scope, caller: Caller | None) -> Span | None:
    """The span of a request that has just come; None if it is not recorded."""
    span = collector.begin(_method(scope), caller, "server")
    return span if span.recorded else None


def end(span: Span, scope: Scope, route: str, status: int) -> None:
    """All that is told of a request. Nothing of it is the caller's: not the path, the query, a
    header or the request id, which may be anything."""
    state = scope["state"]
    admitted: Admitted | None = state.get("admitted")
    told = {
        "http.request.method": _method(scope),
        "http.route": route,
        "http.response.status_code": status,
        "mammoseq.problem": state.get("problem"),
        "mammoseq.model": state.get("model"),
        "mammoseq.images": admitted.images if admitted else None,
    }
    span.rename(f"{_method(scope)} {route}")
    span.note({name: value for name, value in told.items() if value is not None})
    if status >= 500:
        span.fail(state.get("problem") or str(status))
    span.end()


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else "_OTHER"


def _count(result: Result, spans: int) -> None:
    metrics.SPANS.labels(result).inc(spans)
