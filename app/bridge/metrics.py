"""Every Prometheus metric of the bridge, declared once. Documented in ``docs/bridge.md``."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

READ = Counter("mammoseq_bridge_studies_read_total", "Studies read, results stored.")
REFUSED = Counter(
    "mammoseq_bridge_studies_refused_total",
    "Studies that the service refused, by its problem code.",
    ["code"],
)
WITHOUT_PRIORS = Counter(
    "mammoseq_bridge_studies_without_priors_total",
    "Studies read alone because they could not be read together with their priors.",
)
FAILURES = Counter(
    "mammoseq_bridge_failures_total",
    "Times that one side did not do its part and is asked again, by side and code.",
    ["side", "code"],
)
WAITING = Gauge("mammoseq_bridge_waiting_studies", "Studies seen and not yet read or refused.")
SPANS = Counter(
    "mammoseq_bridge_spans_total",
    "Spans of traces, by result: exported, failed (the collector did not take them), dropped (too "
    "many waited for it).",
    ["result"],
)
LAST_SUCCESS = Gauge(
    "mammoseq_bridge_last_success_timestamp_seconds",
    "When the side last answered with success, seconds since 1970.",
    ["side"],
)
