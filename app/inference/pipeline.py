"""The way of a request: bytes -> pixels -> tensor -> batch -> reading -> answer.

Owns the threads: one pool that decodes and renders, and the encoder's batcher. The event loop
that calls it only waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from app.imaging.facts import Stated, completed
from app.imaging.preprocess import Crop, InputGeometry
from app.imaging.quality import Fault, faults_of
from app.imaging.reduced import preprocess_reduced
from app.inference.batcher import Batcher
from app.inference.exams import Exam, Sent, slots_and_days
from app.inference.familiarity import familiarity_of
from app.inference.sessions import ExamReading, Features, Sessions
from app.problems import Refusal
from app.settings import Settings

T = TypeVar("T")


Gate = Literal["refuse", "warn"]


@dataclass(frozen=True)
class Kept:
    """What is kept of an image besides its features: a picture of at most ``long_side`` pixels,
    if one is wanted, and the DICOM header with a key of the file's content."""

    long_side: int | None
    header: bool


@dataclass(frozen=True)
class Prepared:
    """An image that was looked at.

    ``crop`` and ``inverted`` say how it became the model's input, ``faults`` what the quality gate
    found and let pass; ``shown`` is the whole image small, uint8 [height, width].
    """

    sent: Sent
    crop: Crop
    inverted: bool
    faults: tuple[Fault, ...] = ()
    shown: NDArray[np.uint8] | None = None
    header: Dataset | None = None


@dataclass(frozen=True)
class Encoded:
    """A prepared image with the encoder's ``features`` of it."""

    prepared: Prepared
    features: Features


class Stopwatch:
    """Seconds per stage of one request, each also observed as a metric."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent = time.perf_counter() - start
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
        cv2.setNumThreads(1)  # the pools are the parallelism
        self.bundle = bundle
        self.sessions = Sessions(bundle.encoder, bundle.head, device=settings.device)
        size = bundle.manifest.input
        self._size = InputGeometry(size.height, size.width)
        self._max_pixels = settings.max_pixels
        self._accept = settings.accept
        self._familiarity = familiarity_of(bundle, settings.gate)
        self._pool = ThreadPoolExecutor(settings.workers, "work")
        on_gpu = self.sessions.device == "cuda"
        self._batcher = Batcher(
            self.sessions.encode,
            workers=1 if on_gpu else settings.workers,
            max_batch=settings.max_batch or (32 if on_gpu else 1),
            max_waiting=settings.max_waiting_images,
            observe_batch=metrics.BATCH_IMAGES.observe,
        )

    async def look_at(
        self,
        files: Sequence[bytes],
        stated: Sequence[Stated],
        assumed: Stated,
        gate: Gate,
        kept: Kept,
        watch: Stopwatch,
    ) -> list[Encoded | Refusal]:
        """Decode, check and encode every file on its own, in parallel and batched with those of
        other requests; a file that must not be scored comes back as its refusal.

        Raises ``Refusal`` (``overloaded``) when so many images could not wait.
        """
        self._batcher.check_room(len(files))
        alone = len(files) == 1  # nothing to compare with, so no need to hash it

        async def one(index: int, data: bytes, said: Stated) -> Encoded | Refusal:
            try:
                prepared, tensor = await self.run(
                    partial(self._prepare, index, data, said, assumed, gate, kept, alone, watch)
                )
                with watch.stage("encode"):
                    (waiting,) = self._batcher.submit(tensor[np.newaxis])
                    features = await asyncio.wrap_future(waiting)
                prepared = await self.run(partial(self._checked, prepared, features, gate))
            except Refusal as refusal:
                return refusal
            return Encoded(prepared, features)

        jobs = (
            one(i, data, said) for i, (data, said) in enumerate(zip(files, stated, strict=True))
        )
        return list(await asyncio.gather(*jobs))

    async def run(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the pool: the event loop never computes."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def read(
        self, images: Mapping[int, Encoded], exams: Sequence[Exam], watch: Stopwatch
    ) -> ExamReading:
        """Read the exams of one breast; ``images`` by their index in the request. Computes: call
        it in the pool."""
        with watch.stage("read"):
            order = [index for exam in exams for index in exam.images]
            features = Features(
                np.concatenate([images[index].features.maps for index in order]),
                np.concatenate([images[index].features.pooled for index in order]),
            )
            place = {index: k for k, index in enumerate(order)}
            placed = [
                replace(exam, images=tuple(place[index] for index in exam.images)) for exam in exams
            ]
            return self.sessions.read(features, *slots_and_days(placed))

    def stop(self) -> None:
        """Finish what is under way, then end the threads."""
        self._batcher.stop()
        self._pool.shutdown()

    def _checked(self, prepared: Prepared, features: Features, gate: Gate) -> Prepared:
        """The image with what its features say against it. Raises ``Refusal`` for that."""
        known = self._familiarity
        fault = known.fault_of(features.pooled[0]) if known else None
        if fault is None:
            return prepared
        if gate == "refuse":
            raise Refusal(fault.code, fault.detail)
        return replace(prepared, faults=(*prepared.faults, fault))

    def _prepare(
        self,
        index: int,
        data: bytes,
        stated: Stated,
        assumed: Stated,
        gate: Gate,
        kept: Kept,
        alone: bool,
        watch: Stopwatch,
    ) -> tuple[Prepared, NDArray[np.float32]]:
        with watch.stage("decode"):
            reduced = decode_reduced(
                data, self._max_pixels, self._size, self._accept, long_side=kept.long_side
            )
            facts = reduced.facts
        with watch.stage("preprocess"):
            model_input = preprocess_reduced(reduced, self._size)
            faults = faults_of(reduced.pixels, model_input, facts)
            shown = (
                displayed(reduced.picture, kept.long_side, inverted=model_input.inverted)
                if kept.long_side is not None
                else None
            )
        if faults and gate == "refuse":
            raise Refusal(faults[0].code, faults[0].detail)
        sent = Sent(
            index=index,
            facts=completed(facts, assumed),
            content_key=None if alone and not kept.header else hashlib.sha256(data).hexdigest(),
            stated_date=stated.exam_date,
            stated_laterality=stated.laterality,
            stated_view=stated.view,
        )
        header = read_header(data) if kept.header and facts.format == "dicom" else None
        prepared = Prepared(sent, model_input.crop, model_input.inverted, faults, shown, header)
        return prepared, model_input.tensor
