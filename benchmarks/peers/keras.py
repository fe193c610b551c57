"""What most people do today: FastAPI, Keras ``model.predict`` and Grad-CAM by GradientTape.

The trained model is the file that ``MAMMOSEQ_KERAS_MODEL`` names (``runs/default/best.keras``
unless set); without it, the same architecture with random weights, which takes as long.
https://keras.io/examples/vision/grad_cam/
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf
import uvicorn
from fastapi import Body, FastAPI
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from app.bundle import find_bundle, load_bundle
from app.imaging.preprocess import InputGeometry, preprocess
from app.inference.probability import calibrated
from benchmarks.peers.work import MODEL_STORE, answered, decoded
from training.models.hybrid import Hybrid

tf.config.threading.set_intra_op_parallelism_threads(1)  # a process per core
tf.config.threading.set_inter_op_parallelism_threads(1)
application = FastAPI()
_manifest = load_bundle(
    find_bundle(Path(os.environ.get(MODEL_STORE, "model_store")), None)
).manifest
_size = InputGeometry(_manifest.input.height, _manifest.input.width)
_trained = Path(os.environ.get("MAMMOSEQ_KERAS_MODEL", "runs/default/best.keras"))
_has_weights = _trained.exists()
_turn = threading.Lock()  # threads that run TensorFlow at once only slow each other down
_SLOTS, _DAYS = np.zeros((1, 1, 1), np.int32), np.zeros((1, 1), np.float32)  # a single image


def _model() -> Hybrid:
    if _has_weights:
        trained: Hybrid = keras.models.load_model(_trained, compile=False)
        return trained
    model = Hybrid(
        encoder="efficientnet_lite0",
        height=_size.height,
        width=_size.width,
        classes=len(_manifest.classes),
    )
    model.build()
    return model


model = _model()


@application.post("/predict")
def predict(data: Annotated[bytes, Body(media_type="application/octet-stream")]) -> JSONResponse:
    pixels = decoded(data)
    model_input = preprocess(pixels, _size)
    images = model_input.tensor[np.newaxis]
    with _turn:
        logits = model.predict({"images": images, "slots": _SLOTS, "days": _DAYS}, verbose=0)
        heatmap = _grad_cam(images)
    probability = float(calibrated(logits[0], _manifest))
    answer = answered(probability, heatmap, pixels, model_input)
    return JSONResponse({**answer, "random_weights": not _has_weights})


def _grad_cam(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Selvaraju et al., 2017: float32 [rows, columns] of the positive class."""
    with tf.GradientTape() as tape:
        maps = model.feature_maps(images)
        tape.watch(maps)
        logits = model.read_exams(model.pool(maps), _SLOTS, _DAYS)
        score = logits[:, _manifest.positive_index]
    weights = tf.reduce_mean(tape.gradient(score, maps), axis=(1, 2), keepdims=True)
    heatmap: Any = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))[0]
    return np.asarray(heatmap.numpy(), np.float32)


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.peers.keras:application",
        port=int(sys.argv[1]),
        workers=int(sys.argv[2]),
        access_log=False,
        log_level="warning",
    )
