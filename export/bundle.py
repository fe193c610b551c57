"""A finished run -> a bundle in the model store, all of it or nothing."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras

from app.bundle import (
    DISCLAIMER,
    ENCODER,
    GATE,
    HEAD,
    MODEL_CARD,
    SCHEMA_VERSION,
    Bundle,
    InputSpec,
    Precision,
    check_new_version,
    load_bundle,
    new_version,
    seal,
)
from app.imaging.preprocess import PREPROCESSING_VERSION
from app.inference.sessions import Sessions
from export.card import model_card
from export.figures import copy_figures, has_figures
from export.gate import GateImages, fit_gate
from export.graphs import export_encoder, export_head
from export.reduced import read_pixels, reduced_encoder
from export.verify import verify
from training.models.hybrid import Hybrid

_COPIED = ("metrics.json", "history.csv", "roc.png", "reliability.png", "history.png")
_TOOLS = ("tensorflow-cpu", "keras", "tf2onnx", "onnx", "onnxruntime-gpu", "numpy")


_SAME_AUC = 0.005  # an evaluation rounds otherwise than Keras, and is of the same model


def export(
    run: Path,
    target: Path,
    precision: Precision = "fp32",
    evaluation: Path | None = None,
    gate: GateImages | None = None,
) -> Bundle:
    """Export ``run``'s best model to ``target``, ``<store>/<name>/<version>``. Calibrates int8 on
    the training images in the run's ``calibration.npz``. ``evaluation`` is the folder of a
    ``training evaluate`` of the same model: its subgroups go into the card, and its figures take
    the place of the run's. Without a ``gate`` the bundle has none, and the service refuses to start
    with it.

    Everything is written beside the target and moved there once verified. Raises
    ``VerificationError``, and ``FileExistsError`` if there is such a version already.
    """
    check_new_version(target)
    if not (run / "best.keras").is_file():
        raise FileNotFoundError(f"{run / 'best.keras'} is missing: is the fit finished?")
    calibrate_on = read_pixels(run / "calibration.npz") if precision == "int8" else None
    model: Hybrid = keras.models.load_model(run / "best.keras", compile=False)
    data = json.loads((run / "data.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    evaluated = _evaluation(evaluation, metrics) if evaluation else None
    with new_version(target) as work:
        export_encoder(model, work / ENCODER)
        export_head(model, work / HEAD)
        sessions = Sessions((work / ENCODER).read_bytes(), (work / HEAD).read_bytes(), device="cpu")
        pixels = read_pixels(run / "verification.npz")
        verification = asdict(verify(model, sessions, pixels))
        if precision != "fp32":
            encoder, verification["reduced"] = reduced_encoder(
                (work / ENCODER).read_bytes(),
                (work / HEAD).read_bytes(),
                precision,
                positive=data["classes"].index(data["positive_class"]),
                calibrate_on=calibrate_on,
                verify_on=pixels,
            )
            (work / ENCODER).write_bytes(encoder)
        manifest = _manifest(model, target, data, metrics, verification, precision)
        if gate:
            served = Sessions(
                (work / ENCODER).read_bytes(), (work / HEAD).read_bytes(), device="cpu"
            )
            content, spec = fit_gate(served, InputSpec(**manifest["input"]), gate)
            (work / GATE).write_bytes(content)
            manifest["gate"] = spec.model_dump()
        for name in _COPIED:
            shutil.copyfile(run / name, work / name)
        measured = [folder for folder in (evaluation, run) if folder and has_figures(folder)]
        if measured:  # a run from before there were figures has none
            copy_figures(measured[0], work)
        (work / MODEL_CARD).write_text(model_card(manifest, metrics, data, evaluated))
        seal(work, manifest)
    return load_bundle(target)


def _evaluation(folder: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    there, here = found["units"]["breast"]["auc"]["value"], metrics["auc_per_breast"]["value"]
    if abs(there - here) > _SAME_AUC:
        raise ValueError(
            f"{folder} is not an evaluation of this model on its validation patients: AUC per "
            f"breast {there:.3f}, not {here:.3f}"
        )
    return found


def _manifest(
    model: Hybrid,
    target: Path,
    data: dict[str, Any],
    metrics: dict[str, Any],
    verification: dict[str, Any],
    precision: Precision,
) -> dict[str, Any]:
    height, width, _ = model.encoder.input_shape[1:]
    rows, columns, _ = model.encoder.output_shape[1:]
    return {
        "schema_version": SCHEMA_VERSION,
        "name": target.parent.name,
        "version": target.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "classes": data["classes"],
        "positive_class": data["positive_class"],
        "input": {"height": height, "width": width},
        "preprocessing": {
            "version": PREPROCESSING_VERSION,
            "description": "breast found, inverted if the background is bright, chest wall left, "
            "cropped to its bounding box, stretched to the input, 5 to 99.5 percentile of the "
            "breast to [-1, 1]",
        },
        "time_encoding": "days since the previous exam, 0 for the first; log(1 + days) / "
        "log(1 + 365) inside the graph",
        "heatmap": {
            "rows": rows,
            "columns": columns,
            "method": "Grad-CAM of the class logit at the last feature map, exact",
        },
        "temperature": metrics["calibration"]["temperature"],
        "operating_points": metrics["operating_points"],
        "default_operating_point": "balanced",
        "intended_use": DISCLAIMER,
        "data": {
            "fingerprint_sha256": data["fingerprint_sha256"],
            "splits": data["splits"],
            "terms": data["terms"],
            "prevalence": metrics["calibration"]["prevalence"],
            "auc_per_breast": metrics["auc_per_breast"],
            "auc_per_image": metrics["auc_per_image"],
        },
        "precision": precision,
        "verification": verification,
        "tools": {"python": platform.python_version()} | {name: version(name) for name in _TOOLS},
    }
