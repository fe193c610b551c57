"""Runs of a session whose input and outputs stay where the device wants them (IO binding).

A device is given few batch sizes, so that what it prepares for a shape, memory and algorithms, is
prepared once: a batch is filled up to the next size, and the rows that fill it are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class BoundRuns:
    """Runs of ``session`` with its one input and the named ``outputs``, float32, their first axis
    the batch, in memory of ``device`` (``cuda`` or ``cpu``). Any number of threads may call it."""

    def __init__(self, session: ort.InferenceSession, outputs: Sequence[str], device: str) -> None:
        self._session = session
        self._outputs = tuple(outputs)
        self._device = device
        # One binding is in use by one thread at a time; pop and append of a list are atomic
        self._idle: dict[int, list[_Binding]] = {size: [] for size in BATCH_SIZES}

    def warm_up(self) -> None:
        """Run every batch size once."""
        _, *shape = self._session.get_inputs()[0].shape
        for size in BATCH_SIZES:
            self.run(np.zeros((size, *shape), np.float32))

    def run(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs for float32 [images, ...] of any number of images."""
        most = BATCH_SIZES[-1]
        parts = [self._run(images[i : i + most]) for i in range(0, len(images), most)]
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]

    def _run(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        size = next(size for size in BATCH_SIZES if size >= len(images))
        idle = self._idle[size]
        try:
            binding = idle.pop()
        except IndexError:
            binding = _Binding(self._session, self._outputs, size, self._device)
        answers = binding.run(images)
        idle.append(binding)  # not after an error: what it holds may be half written
        return answers


class _Binding:
    """Memory for one batch of ``size`` images, on the host and on the device."""

    def __init__(
        self, session: ort.InferenceSession, outputs: Sequence[str], size: int, device: str
    ) -> None:
        self._session = session
        (images,) = session.get_inputs()
        self._filled = np.zeros((size, *images.shape[1:]), np.float32)
        self._input = ort.OrtValue.ortvalue_from_shape_and_type(
            self._filled.shape, np.float32, device, 0
        )
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(images.name, self._input)
        shapes = {output.name: output.shape for output in session.get_outputs()}
        for name in outputs:
            shape = (size, *shapes[name][1:])
            value = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, device, 0)
            self._binding.bind_ortvalue_output(name, value)

    def run(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The outputs for at most ``size`` images, in arrays of their own."""
        if len(images) < len(self._filled):
            self._filled[: len(images)] = images
            self._input.update_inplace(self._filled)
        else:
            self._input.update_inplace(images)
        self._session.run_with_iobinding(self._binding)
        return [answer[: len(images)] for answer in self._binding.copy_outputs_to_cpu()]
