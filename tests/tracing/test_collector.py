"""Spans on their way to a collector: which reach it, and what becomes of the others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.problems import Refusal
from app.tracing.collector import Collector
from app.tracing.spans import Caller, caller_of, ended, span, under_way, waiting, within
from tests.collector import Received, collecting
from tests.serving import free_port

TRACE = "0af7" * 8
SPAN = "00f067aa0ba902b7"


def collector(received: Received, told: Counter[str]) -> Collector:
    def count(result: str, spans: int) -> None:
        told[result] += spans

    return Collector(received.url, {"service.name": "tests"}, count)


def until(so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_a_thread_does_lies_below_what_it_works_for() -> None:
    with collecting() as received:
        begins = collector(received, Counter())
        with ThreadPoolExecutor(2) as threads, ended(begins.begin("whole", None, "server")):
            whole, waited = under_way(), waiting("queue")

            def part(name: str) -> None:
                waited()
                with within(whole), span(name):
                    pass

            list(threads.map(part, ("one", "other")))
            assert under_way() is whole
        assert under_way() is None
        begins.stop()
        spans = {each.name: each for each in received.spans}
    assert spans.keys() == {"whole", "queue", "one", "other"}
    assert {each.parent for each in spans.values()} == {"", spans["whole"].span_id}
    assert {each.trace_id for each in spans.values()} == {spans["whole"].trace_id}


def test_error_is_told_by_its_code_or_type_and_never_by_its_words() -> None:
    with collecting() as received:
        begins = collector(received, Counter())
        refusal = Refusal("no_breast_found", "zyxmarker")
        for error in (refusal, ValueError("zyxmarker"), SystemExit("zyxmarker")):
            with pytest.raises(type(error)), ended(begins.begin("it", None, "internal")):
                raise error
        begins.stop()
        spans = received.spans
        assert b"zyxmarker" not in b"".join(received.bodies)
    assert all(each.failed for each in spans)
    types = [each.attributes["error.type"] for each in spans]
    assert sorted(types) == ["SystemExit", "ValueError", "no_breast_found"]


def test_what_is_too_much_for_a_collector_that_hangs_is_dropped_and_counted() -> None:
    told: Counter[str] = Counter()
    with collecting() as received:
        received.answer = lambda: time.sleep(300) or 200
        begins = collector(received, told)
        made, longest = 10_000, 0.0
        for _ in range(made):
            began = time.perf_counter()
            begins.begin("it", None, "internal").end()
            longest = max(longest, time.perf_counter() - began)
        assert longest < 2, "it was waited for"
        assert told["dropped"] >= made - 4096 - 512
        began = time.monotonic()
        begins.stop()
        assert time.monotonic() - began < 20


def test_collector_that_comes_back_is_told_again() -> None:
    told: Counter[str] = Counter()
    with collecting() as received:
        received.answer = lambda: 500
        begins = collector(received, told)
        begins.begin("it", None, "internal").end()
        until(lambda: told["failed"])
        received.answer = lambda: 200
        begins.begin("it", None, "internal").end()
        until(lambda: told["exported"])
        begins.stop()
        assert (told, len(received.spans)) == ({"failed": 1, "exported": 1}, 1)


def test_variables_of_opentelemetry_say_more_of_the_process_and_open_the_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=mammoseq-7")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=north")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")  # is not used
    with collecting() as received:
        begins = collector(received, Counter())
        begins.begin("not chosen", None, "server").end()
        begins.begin("it", Caller(TRACE, SPAN, sampled=True), "server").end()
        begins.stop()
        (told,) = received.spans
        (headers,) = received.headers
    assert told.process.items() >= {("k8s.pod.name", "mammoseq-7"), ("service.name", "tests")}
    named = {name.lower(): value for name, value in headers.items()}
    assert (named["x-tenant"], named["content-encoding"]) == ("north", "gzip")


def test_caller_who_wants_no_trace_has_none_and_whom_we_call_is_told_so() -> None:
    with collecting() as received:
        begins = collector(received, Counter())
        begun = begins.begin("it", Caller(TRACE, SPAN, sampled=False), "server")
        assert not begun.recorded
        with ended(begun), span("below", kind="client"):
            below = under_way()
            assert below is not None
            found = caller_of(below.traceparent)
        assert found is not None
        assert (found.trace_id, found.sampled) == (TRACE, False)
        begins.stop()
        assert not received.bodies


@pytest.mark.parametrize(
    ("header", "caller"),
    [
        (f"00-{TRACE}-{SPAN}-01", (TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-00", (TRACE, SPAN, False)),
        (f"00-{TRACE}-{SPAN}-03", (TRACE, SPAN, True)),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-holds", (TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        ("", None),
    ],
)
def test_traceparent_is_read_as_the_w3c_wants(
    header: str, caller: tuple[str, str, bool] | None
) -> None:
    found = caller_of(header)
    assert (found and (found.trace_id, found.span_id, found.sampled)) == caller
