"""Where the bridge's traces go: one for each study that is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.bridge import metrics
from app.bridge.settings import Settings

if TYPE_CHECKING:
    from app.tracing.collector import Collector, Result


def collector_of(settings: Settings) -> Collector | None:
    """None if the settings want none. Raises ``ImportError`` where the extra is not installed."""
    if settings.traces_url is None:
        return None
    from app.tracing.collector import Collector  # not above: an extra

    return Collector(settings.traces_url, {"service.name": "mammoseq-bridge"}, _count)


def _count(result: Result, spans: int) -> None:
    metrics.SPANS.labels(result).inc(spans)
