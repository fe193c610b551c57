"""What every peer does with the bytes of a mammogram: the work that a framework is given.

The decoders are those that people use, OpenCV and pydicom with what it prefers by default; the
rest is Mammoseq's own code over the same graphs. So what differs is the framework and the decoder.
"""

from __future__ import annotations

import base64
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_voi_lut

from app.bundle import find_bundle, load_bundle
from app.imaging.display import crop_in, displayed
from app.imaging.preprocess import InputGeometry, ModelInput, preprocess
from app.inference.probability import calibrated
from app.inference.sessions import Sessions
from app.render.heatmap import encode_map, encode_overlay

OVERLAY_LONG_SIDE = 320  # the service's default
MODEL_STORE = "MAMMOSEQ_MODEL_STORE"  # the environment variable that names the folder

Answer = dict[str, Any]

_SLOTS, _DAYS = np.zeros((1, 1), np.int32), np.zeros(1, np.float32)  # a single image


class Work:
    """The model, and the answer to one file. Shared by threads as ONNX Runtime's sessions are."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)  # the peers' workers are the parallelism
        bundle = load_bundle(find_bundle(Path(os.environ.get(MODEL_STORE, "model_store")), None))
        self._manifest = bundle.manifest
        self._size = InputGeometry(bundle.manifest.input.height, bundle.manifest.input.width)
        self._sessions = Sessions(bundle.encoder, bundle.head, device="cpu")

    def answer(self, data: bytes) -> Answer:
        """Probability, Grad-CAM map and overlay of a PNG, JPEG or DICOM file."""
        pixels = decoded(data)
        model_input = preprocess(pixels, self._size)
        reading = self._sessions.read(
            self._sessions.encode(model_input.tensor[np.newaxis]), _SLOTS, _DAYS
        )
        probability = float(calibrated(reading.logits, self._manifest))
        heatmap = reading.heatmaps[0, 0, self._manifest.positive_index]
        return answered(probability, heatmap, pixels, model_input)


def answered(
    probability: float, heatmap: NDArray[np.float32], pixels: NDArray[Any], model_input: ModelInput
) -> Answer:
    """The answer that is sent as JSON; ``heatmap`` float32 [rows, columns]."""
    scale = float(heatmap.max())
    shown = displayed(pixels, OVERLAY_LONG_SIDE, inverted=model_input.inverted)
    height, width = shown.shape
    box = crop_in(shown, model_input.crop, *pixels.shape)
    overlay = encode_overlay(shown, heatmap, box, scale=scale, image_type="jpeg")
    return {
        "calibrated_probability": probability,
        "heatmap": {
            "scale": scale,
            "map": {"data": _base64(encode_map(heatmap, scale))},
            "overlay": {"height": height, "width": width, "data": _base64(overlay)},
        },
    }


def decoded(data: bytes) -> NDArray[Any]:
    """Grey pixels, uint8 or uint16 [rows, columns]."""
    if data[128:132] != b"DICM":
        flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
        return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), flags))
    dataset = pydicom.dcmread(BytesIO(data))
    pixels = apply_voi_lut(dataset.pixel_array, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    return pixels if pixels.dtype.kind == "u" else np.clip(pixels, 0, 65535).astype(np.uint16)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
