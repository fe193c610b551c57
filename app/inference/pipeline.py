"""The way of a request: bytes -> pixels -> tensor -> features -> reading.

A worker takes an image all the way to its features: on a CPU nothing is gained by batches, and
every hand-over between threads costs (``docs/performance.md``). On a GPU images meet in the
batcher, and other images are decoded while a worker waits for it. The event loop that calls only
waits.
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

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from app import metrics
from app.bundle import ENCODER, GATE, HEAD, MANIFEST, Bundle, Manifest
from app.imaging.decode import decode_reduced
from app.imaging.dicom import read_header
from app.imaging.display import displayed
from app.imaging.facts import ImageFacts, Stated, completed
from app.imaging.preprocess import Crop, InputGeometry
from app.imaging.quality import Fault, faults_of
from app.imaging.reduced import preprocess_reduced
from app.imaging.shown import Shown, decode_to_show
from app.inference.compute import Compute
from app.inference.exams import Exam, Sent, slots_and_days
from app.inference.familiarity import Familiarity, familiarity_of
from app.inference.look import Look
from app.inference.reference import references_of
from app.inference.sessions import ExamReading, Features, GraphError, Sessions
from app.inference.workers import Turn
from app.problems import Refusal
from app.settings import Settings
from app.tracing import spans

T = TypeVar("T")

Gate = Literal["refuse", "warn"]


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
    """One model: made of a verified bundle, and then for any number of requests. It owns no thread:
    it computes on those of ``compute``, which other models share, and goes with the last request
    that uses it.

    Raises ``BundleError``, ``GraphError`` or ``DeviceError`` for what cannot be served.
    """

    def __init__(self, bundle: Bundle, settings: Settings, compute: Compute | None = None) -> None:
        """Without ``compute`` this is the first model, and has one made for its device."""
        self.bundle = bundle
        self.model = f"{bundle.manifest.name}/{bundle.manifest.version}"
        self.sessions = Sessions(
            bundle.encoder, bundle.head, device=settings.device, threads=settings.ort_threads
        )
        self._familiarity = familiarity_of(bundle, settings.gate)
        _check_answers(self.sessions, bundle.manifest, self._familiarity)
        size = bundle.manifest.input
        self._size = InputGeometry(size.height, size.width)
        self._max_pixels = settings.max_pixels
        self._accept = settings.accept
        self.references = references_of(bundle)
        self.compute = compute or Compute(settings, self.sessions.device)

    async def run(self, turn: Turn, work: Callable[[], T], *, image: bool = True) -> T:
        """Do ``work`` on a worker: an ``image``, or something small around several."""
        return await self.compute.run(turn, work, image=image)

    async def look_at_all(
        self,
        files: Sequence[bytes],
        stated: Sequence[Stated],
        terms: Terms,
        turn: Turn,
        watch: Stopwatch,
        *,
        alone: bool = False,
    ) -> list[Encoded | Refusal]:
        """Look at every file on its own, in parallel, as ``look_at`` does; one that must not be
        scored comes back as its refusal."""
        return await self._in_parallel(
            turn,
            [
                partial(self.look_at, i, data, said, terms, turn, watch, alone=alone)
                for i, (data, said) in enumerate(zip(files, stated, strict=True))
            ],
        )

    async def look_at_tensors(
        self, tensors: NDArray[np.float32], terms: Terms, turn: Turn, watch: Stopwatch
    ) -> list[Encoded | Refusal]:
        """The same of float32 [images, height, width, 1] that are preprocessed already."""
        return await self._in_parallel(
            turn,
            [
                partial(self._look_at_tensor, i, tensor, terms, turn, watch)
                for i, tensor in enumerate(tensors)
            ],
        )

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
        place = (self.bundle.sha256, key, terms.long_side)
        known = None if alone else self.compute.remembered.get(place)
        if known is not None:
            spans.note({"mammoseq.remembered": True})
        look = known or self._look(data, terms, turn, watch)
        if look.faults and terms.gate == "refuse":
            raise Refusal(look.faults[0].code, look.faults[0].detail)
        if not alone and known is None:
            self.compute.remembered.put(place, look)
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

    def _look_at_tensor(
        self,
        index: int,
        tensor: NDArray[np.float32],
        terms: Terms,
        turn: Turn,
        watch: Stopwatch,
    ) -> Encoded:
        """Encode a tensor, which is an image of its own size. Of the gate only the distance of
        its features applies: the rules look at pixels of files."""
        turn.check()
        height, width, _ = tensor.shape
        facts = completed(ImageFacts("tensor", height, width, bits=32), terms.assumed)
        features, faults = self._features(tensor, watch)
        if faults and terms.gate == "refuse":
            raise Refusal(faults[0].code, faults[0].detail)
        crop = Crop(0, 0, width, height, flipped=False)
        look = Look(facts, crop, inverted=False, faults=faults, features=features, shown=None)
        return Encoded(Sent(index, facts), look, header=None)

    async def _in_parallel(
        self, turn: Turn, looks: Sequence[Callable[[], Encoded]]
    ) -> list[Encoded | Refusal]:
        async def one(index: int, look: Callable[[], Encoded]) -> Encoded | Refusal:
            try:
                with spans.span("image", {"mammoseq.image": index}):
                    return await self.run(turn, look)
            except Refusal as refusal:
                return refusal

        return list(await asyncio.gather(*(one(i, look) for i, look in enumerate(looks))))

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
        features, unfamiliar = self._features(seen.tensor, watch)
        faults = (*faults, *unfamiliar)
        return Look(facts, seen.crop, seen.inverted, faults, features, shown)

    def _features(
        self, tensor: NDArray[np.float32], watch: Stopwatch
    ) -> tuple[Features, tuple[Fault, ...]]:
        """Of an image [height, width, 1], and whether they are too far from familiar ones."""
        with watch.stage("encode"):
            features = self._encode(tensor[np.newaxis])
        unfamiliar = self._familiarity and self._familiarity.fault_of(features.pooled[0])
        return features, (unfamiliar,) if unfamiliar else ()

    def _encode(self, image: NDArray[np.float32]) -> Features:
        return self.compute.encode(self.sessions.encode, image)


def _check_answers(sessions: Sessions, manifest: Manifest, familiarity: Familiarity | None) -> None:
    """Read an empty image, so that both graphs are warm. Raises ``GraphError`` if they do not fit
    each other, their manifest or the gate: no request would be answered."""
    size, nothing = manifest.input, sessions.nothing()
    if nothing.shape[1:] != (size.height, size.width, size.channels):
        raise GraphError(f"{ENCODER} does not take what {MANIFEST} says")
    try:
        features = sessions.encode(nothing)
        reading = sessions.read(features, np.zeros((1, 1), np.int32), np.zeros(1, np.float32))
    except Exception as error:  # ONNX Runtime has an exception of its own for every fault
        kind = type(error).__name__
        raise GraphError(f"{HEAD} cannot read what {ENCODER} sees: {kind}") from None
    shape = (len(manifest.classes), manifest.heatmap.rows, manifest.heatmap.columns)
    if reading.logits.shape != shape[:1] or reading.heatmaps.shape[2:] != shape:
        raise GraphError(f"{HEAD} does not answer what {MANIFEST} says")
    if not np.isfinite(reading.logits).all():
        raise GraphError(f"{HEAD} answers what is no number")
    if familiarity is not None and familiarity.mean.shape != features.pooled.shape[1:]:
        raise GraphError(f"{GATE} is not of what {ENCODER} sees")


def _together(features: Sequence[Features]) -> Features:
    if len(features) == 1:  # not copied
        return features[0]
    return Features(
        np.concatenate([image.maps for image in features]),
        np.concatenate([image.pooled for image in features]),
    )
