"""Every Prometheus metric of the service, declared once. Documented in ``docs/metrics.md``."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = Counter(
    "mammoseq_requests_total", "Requests answered, by route and HTTP status.", ["route", "status"]
)
PROBLEMS = Counter("mammoseq_problems_total", "Requests refused, by problem code.", ["code"])
IGNORED = Counter(
    "mammoseq_ignored_files_total", "Files of studies that were left out, by reason.", ["code"]
)
REQUEST_SECONDS = Histogram(
    "mammoseq_request_duration_seconds",
    "Time from first byte to answer, by route.",
    ["route"],
    buckets=_SECONDS,
)
STAGE_SECONDS = Histogram(
    "mammoseq_stage_duration_seconds",
    "Time in one stage: decode, preprocess, encode, read, render.",
    ["stage"],
    buckets=_SECONDS,
)
BATCH_IMAGES = Histogram(
    "mammoseq_batch_size_images", "Images in one encoder batch.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
SERIES_EXAMS = Histogram(
    "mammoseq_series_length_exams",
    "Exams in one answered request.",
    buckets=(1, 2, 3, 4, 5, 8, 16),
)
QUEUE_SECONDS = Histogram(
    "mammoseq_queue_duration_seconds",
    "Time that a piece of work waited for a worker.",
    buckets=_SECONDS,
)
IN_FLIGHT = Gauge("mammoseq_in_flight_requests", "Requests being worked on.")
WAITING_IMAGES = Gauge("mammoseq_waiting_images", "Images of requests being worked on.")
EXPECTED_WAIT = Gauge(
    "mammoseq_expected_wait_seconds", "How long the latest request was expected to wait."
)
REMEMBERED = Counter(
    "mammoseq_remembered_images_total",
    "Images of series that were looked for among those seen before, by result: hit, miss.",
    ["result"],
)
REMEMBERED_BYTES = Gauge("mammoseq_remembered_bytes", "Memory of images seen before.")
SCORE = Histogram(
    "mammoseq_calibrated_probability_ratio",
    "Calibrated probability of the positive class.",
    buckets=[i / 20 for i in range(1, 21)],
)
MODEL = Gauge(
    "mammoseq_model_info",
    "The model being served; always 1.",
    ["name", "version", "sha256", "provider"],
)
