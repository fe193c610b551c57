"""Every Prometheus metric of the service, declared once. Documented in ``docs/metrics.md``.

Where several processes serve, each writes its values to files in ``PROMETHEUS_MULTIPROC_DIR``, and
any of them tells those of all: sums, but for the gauges that say ``livemax``.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import (
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector, CollectorRegistry

from app.machine import is_running

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
IN_FLIGHT = Gauge(
    "mammoseq_in_flight_requests", "Requests being worked on.", multiprocess_mode="livesum"
)
WAITING_IMAGES = Gauge(
    "mammoseq_waiting_images", "Images of requests being worked on.", multiprocess_mode="livesum"
)
EXPECTED_WAIT = Gauge(
    "mammoseq_expected_wait_seconds",
    "How long the latest request was expected to wait.",
    multiprocess_mode="livemax",
)
REMEMBERED = Counter(
    "mammoseq_remembered_images_total",
    "Images of series that were looked for among those seen before, by result: hit, miss.",
    ["result"],
)
REMEMBERED_BYTES = Gauge(
    "mammoseq_remembered_bytes", "Memory of images seen before.", multiprocess_mode="livesum"
)
SCORE = Histogram(
    "mammoseq_calibrated_probability_ratio",
    "Calibrated probability of the positive class.",
    buckets=[i / 20 for i in range(1, 21)],
)
AUDIT_FAILURES = Counter(
    "mammoseq_audit_failures_total", "Records that could not be written to the audit log."
)
SCORES = Counter(
    "mammoseq_scores_total",
    "Breasts read, by model, unit (image, breast, series), vendor, and bucket of the calibrated "
    "probability: 1 is the lowest.",
    ["model", "unit", "vendor", "bucket"],
)
REFERENCE = Gauge(
    "mammoseq_reference_scores_ratio",
    "Share of the validation scores of the model in a bucket; absent where its bundle has no "
    "figures.",
    ["model", "unit", "bucket"],
    multiprocess_mode="livemax",
)
SPANS = Counter(
    "mammoseq_spans_total",
    "Spans of traces, by result: exported, failed (the collector did not take them), dropped (too "
    "many waited for it).",
    ["result"],
)
MODEL = Gauge(
    "mammoseq_model_info",
    "The models that are loaded; 1, and 0 once another has taken the place of one.",
    ["name", "version", "sha256", "provider"],
    multiprocess_mode="livemax",
)
MODELS_REFUSED = Counter(
    "mammoseq_models_refused_total",
    "Versions in the store that could not be served, by reason; each process counts.",
    ["reason"],
)
REFUSED_MODELS = Gauge(
    "mammoseq_refused_models",
    "Versions in the store that should be served and cannot.",
    multiprocess_mode="livemax",
)
SHADOW_STUDIES = Counter(
    "mammoseq_shadow_studies_total",
    "Answered requests that the shadow model was to score, too, by what became of it.",
    ["shadow", "outcome"],
)
SHADOW_BREASTS = Counter(
    "mammoseq_shadow_breasts_total",
    "Breasts that two models scored, by which of them called it positive.",
    ["shadow", "model", "positive"],
)
SHADOW_DIFFERENCE = Histogram(
    "mammoseq_shadow_difference_ratio",
    "How far the calibrated probabilities of the two are apart.",
    ["shadow", "model"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0),
)
GPU = Gauge(
    "mammoseq_visible_gpus",
    "NVIDIA GPUs that the service can see, whether it uses them or not.",
    multiprocess_mode="livemax",
)
FAILED = Gauge(
    "mammoseq_failed_devices",
    "Processes whose device has failed: they answer `not_ready` until they are restarted.",
    multiprocess_mode="livesum",
)
STARTED = Gauge(
    "mammoseq_start_time_seconds",
    "When the first process of the service began to serve, seconds since 1970.",
    ["version"],  # without labels it would be 0 until a process that replaces another has begun
    multiprocess_mode="min",
)


def exposition() -> bytes:
    """All metrics in Prometheus' text format, those of all processes together."""
    if _folder() is None:
        return generate_latest()
    registry = CollectorRegistry()
    registry.register(_OfAllProcesses())
    registry.register(_WhatProcessesTake())
    return generate_latest(registry)


@dataclass(frozen=True)
class Totals:
    """What all processes together have done since ``started``, seconds since 1970, and what is
    under way in them."""

    started: float
    requests: int
    images: int
    busy_seconds: float
    in_flight: int


def totals(routes: Collection[str]) -> Totals:
    """The totals, of the requests those to ``routes``. An image that was seen before is one too,
    and a worker is busy while it is in any of the stages."""
    started = requests = images = busy = in_flight = 0.0
    for family in _OfAllProcesses().collect() if _folder() else _of_this_process():
        for sample in family.samples:
            match sample.name:
                case "mammoseq_start_time_seconds":
                    started = sample.value
                case "mammoseq_requests_total" if sample.labels["route"] in routes:
                    requests += sample.value
                case "mammoseq_batch_size_images_sum":
                    images += sample.value
                case "mammoseq_remembered_images_total" if sample.labels["result"] == "hit":
                    images += sample.value
                case "mammoseq_stage_duration_seconds_sum":
                    busy += sample.value
                case "mammoseq_in_flight_requests":
                    in_flight += sample.value
    return Totals(started, round(requests), round(images), busy, round(in_flight))


def forget_the_dead() -> None:
    """Take what processes that are no more had in flight out of the sums."""
    for process in _processes():
        if not is_running(process):
            mark_process_dead(process)  # type: ignore[no-untyped-call]


class _OfAllProcesses(Collector):
    """The metrics of this module, also those that have no value yet."""

    def collect(self) -> Iterator[Metric]:
        of_all = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        merged = {family.name: family for family in of_all.collect()}  # type: ignore[no-untyped-call]
        for metric in _declared():
            (family,) = metric.describe()
            yield merged.get(family.name, family)


class _WhatProcessesTake(Collector):
    """``process_*``, as of a single process: of all together, but for when the first started."""

    def collect(self) -> Iterator[Metric]:
        together: dict[str, Metric] = {}
        for process in filter(is_running, _processes()):
            for family in ProcessCollector(pid=partial(str, process), registry=None).collect():
                known = together.setdefault(family.name, family)
                if known is family:
                    continue
                add = min if family.name == "process_start_time_seconds" else operator.add
                known.samples = [
                    sample._replace(value=add(sample.value, other.value))
                    for sample, other in zip(known.samples, family.samples, strict=True)
                ]
        yield from together.values()


def _of_this_process() -> Iterator[Metric]:
    for metric in _declared():
        yield from metric.collect()


def _declared() -> Iterator[MetricWrapperBase]:
    """The metrics of this module."""
    for value in list(globals().values()):
        if isinstance(value, MetricWrapperBase):
            yield value


def _processes() -> set[int]:
    """Those that have written values, also if they are no more."""
    folder = _folder()
    files = folder.glob("gauge_*.db") if folder else ()
    return {int(file.stem.rpartition("_")[2]) for file in files}


def _folder() -> Path | None:
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None
