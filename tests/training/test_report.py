"""Scores and figures of a fit: what is measured is what will be served."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from app.bundle import Bundle, OperatingPoint
from app.figures import Figures
from app.imaging.preprocess import to_tensor
from app.inference.probability import calibrated
from tests.training.hybrids import SIDE, small_hybrid
from training.breasts import Breasts
from training.exam_series import encode_series, pooled_encoder
from training.fit import draw_series
from training.manifest import LabelledImage
from training.models.hybrid import Hybrid
from training.report import write_report
from training.score import score_breasts
from training.series import Series

INTERVALS = np.array([200, 365])


def validation_breasts(classes: int) -> Breasts:
    """24 patients with two views of one breast each."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (48, 8, 8), dtype=np.uint8)
    pixels = np.repeat(np.repeat(coarse, SIDE // 8, axis=1), SIDE // 8, axis=2)
    labels = np.repeat(np.arange(24) % classes, 2).astype(np.int32)
    rows = tuple(
        LabelledImage(Path(f"{i}.png"), f"p{i // 2}", None, "L", "CC", str(labels[i]), "val")
        for i in range(48)
    )
    return Breasts(pixels, rows, labels)


@pytest.fixture(scope="module", params=[2, 3], ids=["2 classes", "3 classes"])
def reported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Hybrid, Breasts, dict[str, Any], Path]:
    model, val = small_hybrid(request.param), validation_breasts(request.param)
    run = tmp_path_factory.mktemp("run")
    positive = request.param - 1

    def draw(rng: np.random.Generator) -> Series:
        return draw_series(val, 3, positive, INTERVALS, rng)

    series = encode_series(pooled_encoder(model), draw, 24, 3, [1], "series")
    history = [
        {"epoch": 1, "loss": 1.0, "val_auc_breast": 0.5, "val_auc_image": 0.5}
    ]  # fmt: skip
    write_report(run, model, val, series, history, positive)
    return model, val, json.loads((run / "metrics.json").read_text()), run


def logits_of_breasts(model: Hybrid, val: Breasts) -> tuple[NDArray[Any], NDArray[Any]]:
    """By the model's own call, one breast at a time, as the service would."""
    found = []
    for indices in val.by_breast():
        slots = np.arange(len(indices), dtype=np.int32)[None, None]
        inputs = {
            "images": to_tensor(val.pixels[indices]), "slots": slots,
            "days": np.zeros((1, 1), np.float32),
        }  # fmt: skip
        found.append(np.asarray(model(inputs, training=False))[0])
    truth = val.labels[[indices[0] for indices in val.by_breast()]] == val.labels.max()
    return np.array(found), truth.astype(np.int32)


def test_scores_of_breasts_are_those_of_the_model_itself(
    reported: tuple[Hybrid, Breasts, dict[str, Any], Path],
) -> None:
    model, val, metrics, _ = reported
    logits, truth = logits_of_breasts(model, val)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers[:, -1] / powers.sum(axis=1)
    _, per_breast = score_breasts(model, val, int(val.labels.max()))
    np.testing.assert_allclose(per_breast.probability, expected, atol=1e-5)
    np.testing.assert_array_equal(per_breast.truth, truth)
    assert metrics["auc_per_breast"]["value"] == pytest.approx(roc_auc_score(truth, expected))
    assert metrics["counts"] == {"images": 48, "breasts": 24}


def test_calibration_was_measured_on_what_the_service_will_answer(
    reported: tuple[Hybrid, Breasts, dict[str, Any], Path], bundle: Bundle
) -> None:
    """The service divides all logits by the temperature; so must the report, for any number of
    classes, or thresholds and operating points are of another number."""
    model, val, metrics, _ = reported
    logits, truth = logits_of_breasts(model, val)
    names = tuple(str(k) for k in range(logits.shape[1]))
    manifest = bundle.manifest.model_copy(
        update={
            "classes": names,
            "positive_class": names[-1],
            "temperature": metrics["calibration"]["temperature"],
        }
    )
    served = calibrated(logits, manifest)
    expected = float(np.mean((served - truth) ** 2))
    assert metrics["calibration"]["brier"]["value"] == pytest.approx(expected, abs=1e-5)
    for point in metrics["operating_points"]:
        called = served >= point["threshold"] - 1e-6
        assert called[truth == 1].mean() == pytest.approx(point["sensitivity"], abs=0.05)
        assert (~called)[truth == 0].mean() == pytest.approx(point["specificity"], abs=0.05)


def test_figures_have_intervals_and_points_have_names(
    reported: tuple[Hybrid, Breasts, dict[str, Any], Path],
) -> None:
    *_, metrics, _ = reported
    for figure in (
        metrics["auc_per_image"], metrics["auc_per_breast"], metrics["calibration"]["brier"],
        metrics["simulated_series"]["auc_whole_series"],
    ):  # fmt: skip
        assert figure["low"] <= figure["value"] <= figure["high"]
    names = [point["name"] for point in metrics["operating_points"]]
    assert names == ["balanced", "sensitivity-90", "specificity-90"]
    by_name = {point["name"]: point for point in metrics["operating_points"]}
    assert by_name["sensitivity-90"]["sensitivity"] >= 0.9
    assert by_name["specificity-90"]["specificity"] >= 0.9


def test_what_the_page_draws_is_what_was_reported(
    reported: tuple[Hybrid, Breasts, dict[str, Any], Path],
) -> None:
    *_, found, run = reported
    figures = Figures.model_validate_json((run / "figures.json").read_text())
    assert figures.measured_on == "24 breasts, 48 images of 24 validation patients"
    assert [point.model_dump(mode="json") for point in figures.operating_points] == [
        OperatingPoint(**point).model_dump(mode="json") for point in found["operating_points"]
    ]
    assert figures.prevalence == found["calibration"]["prevalence"]
    assert {unit: roc.cases for unit, roc in figures.roc.items()} == {"breast": 24, "image": 48}


def test_run_holds_scores_plots_and_images_to_verify_on(
    reported: tuple[Hybrid, Breasts, dict[str, Any], Path],
) -> None:
    *_, run = reported
    for name in ("roc.png", "reliability.png", "history.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    with (run / "val_scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["unit"] == "image" for row in rows) == 48
    assert sum(row["unit"] == "breast" for row in rows) == 24
    with np.load(run / "verification.npz") as stored:
        assert stored["pixels"].shape == (12, SIDE, SIDE)
