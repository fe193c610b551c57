"""A bundle whose encoder calculates in int8 or float16, with what that costs.

The float32 graphs are verified against Keras first; what is left to measure is how far the
reduced encoder is from them, on real images that it was not calibrated on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from app.bundle import ENCODER, MODEL_CARD, Bundle, Precision, load_bundle, new_version, seal
from app.imaging.preprocess import to_tensor
from app.inference.probability import softmax
from app.inference.sessions import Sessions
from export.card import with_precision
from export.half import halve
from export.quantise import quantise
from export.verify import VerificationError

MIN_IMAGES = 32  # to calibrate on
_HELD_OUT = 8  # one image in so many verifies, where a bundle is all there is


@dataclass(frozen=True)
class Bounds:
    """What a reduced encoder may cost: the mean difference of a probability, and the correlation
    of the heatmap that came out worst. Means hide the one map that points elsewhere."""

    probability_mean: float
    heatmap_worst: float


BOUNDS = {"int8": Bounds(0.02, 0.5), "fp16": Bounds(0.005, 0.9)}


@dataclass(frozen=True)
class Cost:
    """Differences between reduced and float32 graphs on ``images`` single images: of the positive
    class's probability, mean and largest, and Pearson correlation of its heatmaps, mean and worst.
    """

    images: int
    probability_mean: float
    probability_largest: float
    heatmap_mean: float
    heatmap_worst: float


def reduce_bundle(source: Path, target: Path, precision: Precision, images: Path) -> Bundle:
    """Write ``target``, ``<store>/<name>/<version>``, with the weights of the float32 bundle
    ``source`` in another precision. Of ``images``, an npz with ``pixels`` uint8 [images, height,
    width], one in eight verifies and the others calibrate.

    Raises ``VerificationError`` if the result is too far from ``source``, ``ValueError`` for a
    bundle or images that do not fit, and as ``new_version``.
    """
    bundle = load_bundle(source)
    if bundle.manifest.precision != "fp32":
        raise ValueError(f"{source} is {bundle.manifest.precision} already; name its fp32 bundle")
    pixels = read_pixels(images)
    held_out = np.arange(len(pixels)) % _HELD_OUT == _HELD_OUT - 1
    with new_version(target) as work:
        for name in bundle.manifest.files:
            (work / name).write_bytes((source / name).read_bytes())
        encoder, cost = reduced_encoder(
            bundle.encoder,
            bundle.head,
            precision,
            positive=bundle.manifest.positive_index,
            calibrate_on=pixels[~held_out],
            verify_on=pixels[held_out],
        )
        (work / ENCODER).write_bytes(encoder)
        manifest = {
            **bundle.manifest.model_dump(exclude={"files"}),
            "name": target.parent.name,
            "version": target.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "precision": precision,
            "verification": {**bundle.manifest.verification, "reduced": cost},
            "tools": {**bundle.manifest.tools, "onnxruntime-gpu": version("onnxruntime-gpu")},
        }
        card = (work / MODEL_CARD).read_text()
        (work / MODEL_CARD).write_text(with_precision(card, manifest))
        seal(work, manifest)
    return load_bundle(target)


def reduced_encoder(
    encoder: bytes,
    head: bytes,
    precision: Precision,
    *,
    positive: int,
    calibrate_on: NDArray[np.uint8] | None,
    verify_on: NDArray[np.uint8],
) -> tuple[bytes, dict[str, Any]]:
    """Reduce the float32 graph ``encoder``, and measure what it costs together with ``head``.

    Pixels are uint8 [images, height, width]; float16 needs none to calibrate on. Returns
    the graph, and its cost with the bounds for the manifest. Raises ``VerificationError`` if it is
    out of bounds, ``ValueError`` for images that do not fit.
    """
    _check_pixels(encoder, verify_on)
    if precision == "int8":
        if calibrate_on is None or len(calibrate_on) < MIN_IMAGES:
            raise ValueError(f"int8 needs at least {MIN_IMAGES} images to calibrate on")
        _check_pixels(encoder, calibrate_on)
        reduced = quantise(encoder, calibrate_on)
    else:
        reduced, calibrate_on = halve(encoder), None
    found = measure(
        Sessions(encoder, head, device="cpu"),
        Sessions(reduced, head, device="cpu"),
        verify_on,
        positive,
    )
    bounds = BOUNDS[precision]
    # NaN is not within any bound
    if not (
        found.probability_mean <= bounds.probability_mean
        and found.heatmap_worst >= bounds.heatmap_worst
    ):
        raise VerificationError(
            f"in {precision} the probability differs by {found.probability_mean:.3f} on average "
            f"(at most {bounds.probability_mean} is allowed), and the worst heatmap correlates by "
            f"{found.heatmap_worst:.2f} with that in fp32 (at least {bounds.heatmap_worst})"
        )
    calibrated = {} if calibrate_on is None else {"calibration_images": len(calibrate_on)}
    return reduced, {**asdict(found), **calibrated, "bounds": asdict(bounds)}


def measure(
    reference: Sessions, reduced: Sessions, pixels: NDArray[np.uint8], positive: int
) -> Cost:
    """Read every image of ``pixels`` uint8 [images, height, width] alone, with both."""
    differences, correlations = [], []
    for image in tqdm(pixels, "verify", unit="image", mininterval=2):
        (p, heatmap), (q, other) = (_read(s, image, positive) for s in (reference, reduced))
        differences.append(abs(p - q))
        correlations.append(correlation(heatmap, other))
    return Cost(
        images=len(pixels),
        probability_mean=float(np.mean(differences)),
        probability_largest=float(np.max(differences)),
        heatmap_mean=float(np.mean(correlations)),
        heatmap_worst=float(np.min(correlations)),
    )


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Pearson correlation of two maps; one that is flat correlates with another flat one alone."""
    flat = [bool(np.ptp(heatmap) == 0) for heatmap in (a, b)]
    if any(flat):
        return float(all(flat))
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _read(
    sessions: Sessions, image: NDArray[np.uint8], positive: int
) -> tuple[float, NDArray[np.float32]]:
    """Probability and heatmap [rows, columns] of the positive class."""
    features = sessions.encode(to_tensor(image[np.newaxis]))
    reading = sessions.read(features, np.zeros((1, 1), np.int32), np.zeros(1, np.float32))
    return float(softmax(reading.logits)[positive]), reading.heatmaps[0, 0, positive]


def _check_pixels(encoder: bytes, pixels: NDArray[np.uint8]) -> None:
    shape = onnx.load_from_string(encoder).graph.input[0].type.tensor_type.shape
    size = tuple(dimension.dim_value for dimension in shape.dim)[1:3]
    if not len(pixels) or pixels.shape[1:] != size:
        raise ValueError(f"images are {pixels.shape}, the encoder needs some of {size}")


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """``pixels`` uint8 [images, height, width] of an npz. Raises ``FileNotFoundError`` and
    ``ValueError``."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: real images are needed to calibrate and verify"
        )
    with np.load(path) as stored:
        pixels = stored["pixels"] if "pixels" in stored.files else None
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise ValueError(f"{path} does not hold pixels, uint8 [images, height, width]")
    return np.asarray(pixels)
