"""The bare loop: a request's work on as many threads as cores, without HTTP and queues."""

from __future__ import annotations

import itertools
import threading
import time

import cv2

from app.api.answers import Outputs, Pictures, predict_answer
from app.api.results import Question, Read, study_result
from app.bundle import Bundle
from app.imaging.decode import decode_reduced
from app.imaging.display import displayed
from app.imaging.preprocess import InputGeometry
from app.imaging.quality import faults_of
from app.imaging.reduced import preprocess_reduced
from app.inference.exams import Sent, single_exam, slots_and_days
from app.inference.familiarity import familiarity_of
from app.inference.look import Look
from app.inference.pipeline import Encoded, Stopwatch
from app.inference.sessions import Sessions
from app.settings import Settings
from benchmarks.measured import MAX_REQUESTS, Round


class BareLoop:
    """The service's own functions and sessions, called one after the other."""

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        cv2.setNumThreads(1)
        self._bundle = bundle
        self._threads = settings.processes * settings.workers
        self._max_pixels = settings.max_pixels
        self._familiarity = familiarity_of(bundle, settings.gate)
        self._sessions = Sessions(bundle.encoder, bundle.head, device=settings.device)
        size = bundle.manifest.input
        self._size = InputGeometry(size.height, size.width)
        point = bundle.manifest.operating_point(None)
        assert point is not None
        self._question = Question(point, bundle.manifest.positive_index)
        self._pictures = Pictures("jpeg", settings.overlay_long_side, map=True)

    def answer(self, data: bytes) -> str:
        """The JSON that ``POST /predict`` answers to ``data`` by default."""
        watch = Stopwatch()
        side = self._pictures.overlay_long_side
        reduced = decode_reduced(data, self._max_pixels, self._size, long_side=side)
        facts = reduced.facts
        model_input = preprocess_reduced(reduced, self._size)
        faults = faults_of(reduced.pixels, model_input, facts)
        shown = displayed(reduced.picture, side, inverted=model_input.inverted)
        features = self._sessions.encode(model_input.tensor[None])
        if self._familiarity:
            self._familiarity.fault_of(features.pooled[0])
        crop, inverted = model_input.crop, model_input.inverted
        look = Look(facts, crop, inverted, faults, features, shown)
        sent = Sent(0, facts)
        exams = single_exam(sent)
        reading = self._sessions.read(features, *slots_and_days(exams))
        read = Read(None, {0: Encoded(sent, look, None)}, exams, reading)
        result = study_result("bare", self._bundle, self._question, [read], [])
        outputs = Outputs([], None, watch.milliseconds())
        return predict_answer(result, self._pictures, outputs).model_dump_json(by_alias=True)

    def run(self, data: bytes, *, concurrency: int, seconds: float) -> Round:
        """Repeat ``data`` for a while; on fewer threads than cores if so few would be asked."""
        latencies: list[float] = []
        failures: list[BaseException] = []
        turns = itertools.count()
        deadline = time.perf_counter() + seconds

        def work() -> None:
            try:
                while (start := time.perf_counter()) < deadline and next(turns) < MAX_REQUESTS:
                    self.answer(data)
                    latencies.append(time.perf_counter() - start)
            except BaseException as failure:
                failures.append(failure)

        threads = [
            threading.Thread(target=work, daemon=True)
            for _ in range(min(concurrency, self._threads))
        ]
        start, cpu = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return Round(time.perf_counter() - start, latencies, time.process_time() - cpu)
