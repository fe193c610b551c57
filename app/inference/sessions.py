"""ONNX Runtime sessions of a bundle, on the device that was asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from app.bundle import ENCODER, HEAD

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
    and releases the GIL, so both are shared by all threads."""

    def __init__(self, encoder: bytes, head: bytes, *, device: Device) -> None:
        _share_arena()
        providers = _providers(device)
        self._encoder = _session(ENCODER, encoder, providers)
        # The head is a few thousand multiplications: not worth a trip to a GPU
        self._head = _session(HEAD, head, ["CPUExecutionProvider"])
        self.provider: str = self._encoder.get_providers()[0]
        self.device: Literal["cpu", "cuda"] = (
            "cuda" if self.provider == "CUDAExecutionProvider" else "cpu"
        )
        if device == "cuda" and self.device != "cuda":
            raise DeviceError(
                "CUDA was asked for (MAMMOSEQ_DEVICE=cuda) but ONNX Runtime fell back to "
                f"{self.provider}"
            )
        _, height, width, channels = self._encoder.get_inputs()[0].shape
        self.encode(np.zeros((1, height, width, channels), np.float32))  # warm

    def encode(self, images: NDArray[np.float32]) -> Features:
        """Encode float32 [images, height, width, 1]."""
        maps, pooled = self._encoder.run(["maps", "pooled"], {"images": images})
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


def _session(name: str, graph: bytes, providers: list[Any]) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(graph, _options(), providers=providers)
    except Exception as error:  # ONNX Runtime has an exception of its own for every fault
        raise GraphError(f"{name} cannot be run: {type(error).__name__}") from None


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    # One thread per call and as many callers as cores gives the highest throughput on CPU
    options.intra_op_num_threads = 1
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


def _providers(device: Device) -> list[Any]:
    if device == "cuda" or (device == "auto" and _has_nvidia_device()):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def _has_nvidia_device() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
