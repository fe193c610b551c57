"""The way of a request: bytes -> pixels -> tensor -> features -> reading.

Owns the threads. A worker takes an image all the way to its features: on a CPU nothing is gained
by batches, and every hand-over between threads costs (``docs/performance.md``). On a GPU images
meet in the batcher, and other images are decoded while a worker waits for it. The event loop that
calls only waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from app import metrics
from app.bundle import Bundle
from app.imaging.decode import decode_reduced
from app.imaging.dicom import read_header
from app.imaging.display import displayed
from app.imaging.facts import ImageFacts, Stated, completed
from app.imaging.preprocess import Crop, InputGeometry
from app.imaging.quality import Fault, faults_of
from app.imaging.reduced import preprocess_reduced
from app.imaging.shown import Shown, decode_to_show
from app.inference.batcher import Batcher
from app.inference.exams import Exam, Sent, slots_and_days
from app.inference.familiarity import familiarity_of
from app.inference.reference import references_of
from app.inference.remembered import Remembered
from app.inference.sessions import ExamReading, Features, Sessions
from app.inference.workers import Turn, Workers
from app.problems import Refusal
from app.settings import Settings
from app.tracing import spans

T = TypeVar("T")

Gate = Literal["refuse", "warn"]

_GPU_BATCH = 32  # images
_BATCHES_AHEAD = 2  # that may be decoded while one is on the GPU


@dataclass(frozen=True)
class Terms:
    """On what terms images are looked at: what the quality ``gate`` does, what is ``assumed`` of
    files that do not say it, the long side of the picture that is kept of each, if one is wanted,
    and whether DICOM headers are kept."""

    gate: Gate
    assumed: Stated
    long_side: int | None
    header: bool


@dataclass(frozen=True)
class Look:
    """What the bytes of a file alone tell.

    ``crop`` and ``inverted`` say how it became the model's input, ``faults`` what the quality gate
    found, ``features`` what the encoder made of it; ``shown`` is the whole image small, uint8
    [height, width].
    """

    facts: ImageFacts
    crop: Crop
    inverted: bool
    faults: tuple[Fault, ...]
    features: Features
    shown: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Encoded:
    """An image of a request that was looked at; ``header`` is its DICOM header, if kept."""

    sent: Sent
    look: Look
    header: Dataset | None


class Stopwatch:
    """Seconds per stage of one request, each also observed as a metric."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._lock = threading.Lock()  # the images of a series are looked at in parallel
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with spans.span(name):
            yield
        spent = time.perf_counter() - start
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
        metrics.STAGE_SECONDS.labels(name).observe(spent)

    def milliseconds(self) -> dict[str, float]:
        total = time.perf_counter() - self._start
        return {k: round(v * 1000, 2) for k, v in {**self.seconds, "total": total}.items()}


class Pipeline:
    """Started with a verified bundle, stopped once; in between, any number of requests.

    Raises ``BundleError``, ``GraphError`` or ``DeviceError`` for what cannot be served.
    """

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        cv2.setNumThreads(1)  # the workers are the parallelism
        self.bundle = bundle
        self.model = f"{bundle.manifest.name}/{bundle.manifest.version}"
        self.sessions = Sessions(
            bundle.encoder, bundle.head, device=settings.device, threads=settings.ort_threads
        )
        size = bundle.manifest.input
        self._size = InputGeometry(size.height, size.width)
        self._max_pixels = settings.max_pixels
        self._accept = settings.accept
        self._familiarity = familiarity_of(bundle, settings.gate)
        self.references = references_of(bundle)
        self._remembered: Remembered[Look] = Remembered(
            settings.share_of(settings.remembered_bytes), _bytes_of
        )
        on_gpu = self.sessions.device == "cuda"
        self.max_batch = settings.max_batch or (_GPU_BATCH if on_gpu else 1)
        batches = self.max_batch > 1
        self._workers = Workers(
            settings.workers, spare=_BATCHES_AHEAD * self.max_batch if batches else 0
        )
        self._batcher = (
            Batcher(
                self.sessions.encode,
                workers=1 if on_gpu else settings.workers,
                max_batch=self.max_batch,
                observe_batch=metrics.BATCH_IMAGES.observe,
            )
            if batches
            else None
        )

    async def run(self, turn: Turn, work: Callable[[], T], *, image: bool = True) -> T:
        """Do ``work`` on a worker: an ``image``, or something small around several."""
        since, parent = time.perf_counter(), spans.under_way()
        waited = spans.waiting("queue")

        def begun() -> T:
            metrics.QUEUE_SECONDS.observe(time.perf_counter() - since)
            waited()
            with spans.within(parent):
                return work()

        try:
            return await asyncio.wrap_future(self._workers.submit(turn, begun, image=image))
        finally:
            waited()  # also what was given up before its turn came

    async def look_at_all(
        self,
        files: Sequence[bytes],
        stated: Sequence[Stated],
        terms: Terms,
        turn: Turn,
        watch: Stopwatch,
    ) -> list[Encoded | Refusal]:
        """Look at every file on its own, in parallel; one that must not be scored comes back as
        its refusal."""

        async def one(index: int, data: bytes, said: Stated) -> Encoded | Refusal:
            try:
                with spans.span("image", {"mammoseq.image": index}):
                    return await self.run(
                        turn, partial(self.look_at, index, data, said, terms, turn, watch)
                    )
            except Refusal as refusal:
                return refusal

        jobs = (
            one(i, data, said) for i, (data, said) in enumerate(zip(files, stated, strict=True))
        )
        return list(await asyncio.gather(*jobs))

    def look_at(
        self,
        index: int,
        data: bytes,
        stated: Stated,
        terms: Terms,
        turn: Turn,
        watch: Stopwatch,
        *,
        alone: bool = False,
    ) -> Encoded:
        """Decode, check and encode a file; ``alone`` if there is none to compare it with, and it
        is nobody's prior. Computes: call it on a worker.

        Raises ``Refusal`` for what must not be scored, ``Abandoned``.
        """
        turn.check()
        key = None if alone and not terms.header else hashlib.sha256(data).hexdigest()
        known = None if alone else self._remembered.get((key, terms.long_side))
        if known is not None:
            spans.note({"mammoseq.remembered": True})
        look = known or self._look(data, terms, turn, watch)
        if look.faults and terms.gate == "refuse":
            raise Refusal(look.faults[0].code, look.faults[0].detail)
        if not alone and known is None:
            self._remembered.put((key, terms.long_side), look)
        sent = Sent(
            index=index,
            facts=completed(look.facts, terms.assumed),
            content_key=key,
            stated_date=stated.exam_date,
            stated_laterality=stated.laterality,
            stated_view=stated.view,
        )
        is_dicom = look.facts.format == "dicom"
        return Encoded(sent, look, read_header(data) if terms.header and is_dicom else None)

    def show(self, data: bytes, long_side: int | None, turn: Turn, watch: Stopwatch) -> Shown:
        """Decode a file for a viewer, at most ``long_side`` large. Computes: call it on a worker.

        Raises ``Refusal``, ``Abandoned``.
        """
        turn.check()
        with watch.stage("decode"):
            return decode_to_show(
                data, self._max_pixels, self._size, self._accept, long_side=long_side
            )

    def read(
        self, images: Mapping[int, Encoded], exams: Sequence[Exam], watch: Stopwatch
    ) -> ExamReading:
        """Read the exams of one breast; ``images`` by their index in the request. Computes: call
        it on a worker."""
        with watch.stage("read"):
            order = [index for exam in exams for index in exam.images]
            features = _together([images[index].look.features for index in order])
            place = {index: k for k, index in enumerate(order)}
            placed = [
                replace(exam, images=tuple(place[index] for index in exam.images)) for exam in exams
            ]
            return self.sessions.read(features, *slots_and_days(placed))

    def stop(self) -> None:
        """Finish what is under way, then end the threads."""
        self._workers.stop()
        if self._batcher:
            self._batcher.stop()

    def _look(self, data: bytes, terms: Terms, turn: Turn, watch: Stopwatch) -> Look:
        with watch.stage("decode"):
            reduced = decode_reduced(
                data, self._max_pixels, self._size, self._accept, long_side=terms.long_side
            )
            facts = reduced.facts
        with watch.stage("preprocess"):
            seen = preprocess_reduced(reduced, self._size)
            faults = faults_of(reduced.pixels, seen, facts)
            shown = (
                displayed(reduced.picture, terms.long_side, inverted=seen.inverted)
                if terms.long_side is not None
                else None
            )
        del reduced  # may be the largest thing that there is
        if faults and terms.gate == "refuse":
            raise Refusal(faults[0].code, faults[0].detail)
        turn.check()
        with watch.stage("encode"):
            features = self._encode(seen.tensor[np.newaxis])
        unfamiliar = self._familiarity and self._familiarity.fault_of(features.pooled[0])
        faults = (*faults, unfamiliar) if unfamiliar else faults
        return Look(facts, seen.crop, seen.inverted, faults, features, shown)

    def _encode(self, image: NDArray[np.float32]) -> Features:
        if self._batcher is None:
            metrics.BATCH_IMAGES.observe(1)
            return self.sessions.encode(image)
        (waiting,) = self._batcher.submit(image)
        with self._workers.elsewhere():
            return waiting.result()


def _together(features: Sequence[Features]) -> Features:
    if len(features) == 1:  # not copied
        return features[0]
    return Features(
        np.concatenate([image.maps for image in features]),
        np.concatenate([image.pooled for image in features]),
    )


def _bytes_of(look: Look) -> int:
    shown = 0 if look.shown is None else look.shown.nbytes
    return look.features.maps.nbytes + look.features.pooled.nbytes + shown
