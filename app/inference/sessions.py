"""ONNX Runtime sessions of a bundle, on the device that was asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from app import metrics
from app.bundle import ENCODER, HEAD
from app.inference import cuda
from app.inference.bound import BoundRuns
from app.machine import has_gpu
from app.problems import Refusal

_LOG = logging.getLogger("mammoseq")
_CPU = "CPUExecutionProvider"
_FEATURES = ("maps", "pooled")

Device = Literal["auto", "cpu", "cuda"]


class GraphError(Exception):
    """A file of the bundle is not a graph that ONNX Runtime can run."""


class DeviceError(Exception):
    """The device that was asked for is not the one in use."""


@dataclass(frozen=True)
class ExamReading:
    """What the head says of one series.

    ``logits`` float32 [classes] after the last exam; ``step_logits`` [exams, classes] after each
    exam; ``empty_logits`` [classes] before any; ``heatmaps`` [exams, views, classes, rows,
    columns], zero where there is no view.
    """

    logits: NDArray[np.float32]
    step_logits: NDArray[np.float32]
    empty_logits: NDArray[np.float32]
    heatmaps: NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """The encoder's answer for images: ``maps`` float32 [images, rows, columns, channels] and
    their means over positions, ``pooled`` [images, channels]."""

    maps: NDArray[np.float32]
    pooled: NDArray[np.float32]


class Sessions:
    """The two sessions of a bundle, made from its graphs. ``run`` of ONNX Runtime is thread-safe
    and releases the GIL, so both are shared by all threads.

    ``threads`` are ONNX Runtime's for one call of the encoder on CPU. ``failed`` turns true, for
    good, when the device no longer encodes anything: after most CUDA errors only a new process can.
    """

    def __init__(self, encoder: bytes, head: bytes, *, device: Device, threads: int = 1) -> None:
        _share_arena()
        self.failed = False
        self._encoder, on_cuda = _encoder(encoder, device, threads)
        # The head is a few thousand multiplications: not worth a trip to a GPU
        self._head = _session(HEAD, head, on_cuda=False)
        self.provider: str = cuda.PROVIDER if on_cuda else _CPU
        self.device: Literal["cpu", "cuda"] = "cuda" if on_cuda else "cpu"
        self._bound = BoundRuns(self._encoder, _FEATURES, "cuda") if on_cuda else None
        try:
            if self._bound:
                self._bound.warm_up()
            else:
                self._run(self.nothing())
        except Exception as error:
            kind = type(error).__name__
            raise GraphError(f"{ENCODER} cannot be run on {self.provider}: {kind}") from None

    def encode(self, images: NDArray[np.float32]) -> Features:
        """Encode float32 [images, height, width, 1].

        Raises ``Refusal`` (``not_ready``) when the device has failed; what ONNX Runtime raises
        when only this batch could not be encoded.
        """
        if self.failed:
            raise _not_ready()
        try:
            maps, pooled = self._run(images)
        except Exception as error:
            if self._encodes_nothing():
                self.failed = True
                metrics.FAILED.set(1)
                # The message of a CUDA error is left out: it may hold addresses and host names
                _LOG.error("device_failed provider=%s type=%s", self.provider, type(error).__name__)
                raise _not_ready() from None
            raise
        return Features(maps, pooled)

    def read(
        self, features: Features, slots: NDArray[np.int32], days: NDArray[np.float32]
    ) -> ExamReading:
        """Read one series: ``slots`` int32 [exams, views], an index into the images or -1;
        ``days`` float32 [exams] since the previous exam, 0 for the first."""
        logits, steps, empty, heatmaps = self._head.run(
            ["logits", "step_logits", "empty_logits", "heatmaps"],
            {
                "pooled": features.pooled,
                "maps": features.maps,
                "slots": slots[np.newaxis],
                "days": days[np.newaxis],
            },
        )
        seen = (slots >= 0)[:, :, np.newaxis, np.newaxis, np.newaxis]
        return ExamReading(logits[0], steps[0], empty, heatmaps[0] * seen)

    def _run(self, images: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        if self._bound:
            return self._bound.run(images)
        answers: list[NDArray[np.float32]] = self._encoder.run(_FEATURES, {"images": images})
        return answers

    def nothing(self) -> NDArray[np.float32]:
        """One empty image."""
        _, height, width, channels = self._encoder.get_inputs()[0].shape
        return np.zeros((1, height, width, channels), np.float32)

    def _encodes_nothing(self) -> bool:
        """Whether the device fails with any image, not only with the one that has just failed."""
        try:
            self._run(self.nothing())
        except Exception:
            return True
        return False


def check_working(sessions: Sessions) -> None:
    """Raise ``Refusal`` (``not_ready``) once the device has failed."""
    if sessions.failed:
        raise _not_ready()


def _not_ready() -> Refusal:
    return Refusal("not_ready", "The device that encodes images has failed.")


def _encoder(graph: bytes, device: Device, threads: int) -> tuple[ort.InferenceSession, bool]:
    """The encoder's session, and whether it runs on a GPU."""
    if device == "cuda" or (device == "auto" and has_gpu()):
        session = _session(ENCODER, graph, on_cuda=True)
        fault = cuda.fault_of(cuda.assignments(session))
        if not fault:
            return session, True
        if device == "cuda":
            raise DeviceError(f"CUDA was asked for (MAMMOSEQ_DEVICE=cuda) but {fault}")
        _LOG.warning("the GPU is left alone: %s", fault)
    return _session(ENCODER, graph, on_cuda=False, threads=threads), False


def _session(name: str, graph: bytes, *, on_cuda: bool, threads: int = 1) -> ort.InferenceSession:
    options = _options(threads)
    providers: list[Any] = [_CPU]
    if on_cuda:
        options.add_session_config_entry(cuda.RECORD_ASSIGNMENT, "1")
        providers = [(cuda.PROVIDER, cuda.PROVIDER_OPTIONS), _CPU]
    try:
        session = ort.InferenceSession(graph, options, providers=providers)
    except Exception as error:  # ONNX Runtime has an exception of its own for every fault
        raise GraphError(f"{name} cannot be run: {type(error).__name__}") from None
    # It would answer an error of the device by going on, on the CPU, with a line on stdout
    session.disable_fallback()
    return session


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.log_severity_level = 3
    return options


@cache
def _share_arena() -> None:
    """One CPU arena for all sessions of the process.

    A run takes 21 MB an image. From an arena they are there; from malloc they come as fresh pages
    and leave holes among those of the images. It keeps what the most runs at a time have taken: on
    CPU one image each, unless ``max_batch`` is set. Without this strategy it would double in size
    whenever it grows.
    """
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    as_requested = ort.OrtArenaCfg({"arena_extend_strategy": 1})
    ort.create_and_register_allocator(memory, as_requested)
