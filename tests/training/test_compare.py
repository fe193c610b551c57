"""Comparing bundles: a bundle is no different from itself, and every difference is found."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from app.bundle import ENCODER, Bundle, load_bundle, seal
from app.imaging.decode import decode
from app.imaging.preprocess import InputGeometry, preprocess
from app.inference.probability import calibrated
from app.inference.sessions import Sessions
from export.half import halve
from tests.pictures import breast, png
from training import compare as module
from training.agreement import Readings, agreement, heatmap_correlation
from training.compare import CompareConfig, compare
from training.config import DataConfig
from training.manifest import COLUMNS
from training.run_folder import RunError

PATIENTS = 10


def variant(source: Bundle, folder: Path, change: Callable[[bytes], bytes], **said: Any) -> Path:
    """The bundle under another version, with its encoder changed."""
    shutil.copytree(source.folder, folder)
    (folder / ENCODER).write_bytes(change(source.encoder))
    manifest = source.manifest.model_dump(exclude={"files"})
    seal(folder, {**manifest, "version": folder.name, **said})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Path:
    """Two views of one breast of each patient in val, and one patient in train."""
    rows = []
    for patient in range(PATIENTS + 1):
        for view in ("CC", "MLO"):
            name = f"{patient}-{view}.png"
            seed = 2 * patient + (view == "CC")
            spots = [(100 + 20 * (patient % 5), 60)] if patient % 2 else []
            (folder / name).write_bytes(png(breast(300, 200, seed=seed, spots=spots)))
            label = "malignant" if patient in (1, 2, 5, 8, 9) else "no_cancer"
            split = "train" if patient == PATIENTS else "val"
            rows.append((name, f"p{patient}", "", "L", view, label, split))
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*COLUMNS, "split"], *rows])
    return path


@pytest.fixture(scope="module")
def bundles(folder: Path, bundle: Bundle) -> tuple[Path, ...]:
    """The shipped one, the same again, and in half precision."""
    return (
        bundle.folder,
        variant(bundle, folder / bundle.manifest.name / "9.0.0", bytes),
        variant(bundle, folder / bundle.manifest.name / "9.0.1", halve, precision="fp16"),
    )


def config_of(folder: Path, bundles: tuple[Path, ...], manifest: Path) -> CompareConfig:
    return CompareConfig(
        run=folder / "run",
        cache=folder / "cache",
        bundles=bundles,
        data=DataConfig(manifest=manifest, positive_class="malignant"),
        rounds=10,
    )


@pytest.fixture(scope="module")
def config(folder: Path, bundles: tuple[Path, ...], manifest: Path) -> CompareConfig:
    return config_of(folder, bundles, manifest)


@pytest.fixture(scope="module")
def result(config: CompareConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((compare(config) / "metrics.json").read_text())
    return found


def test_only_the_split_that_was_asked_for_is_read(result: dict[str, Any]) -> None:
    assert (result["images"], result["breasts"]) == (2 * PATIENTS, PATIENTS)


def test_same_graphs_differ_in_nothing(result: dict[str, Any]) -> None:
    for same in result["bundles"][:2]:
        for unit in ("image", "breast"):
            assert set(same[f"auc_change_per_{unit}"].values()) == {0.0}
        assert same["calls_changed"] == 0
        assert same["probability_difference"] == {"mean": 0, "largest": 0}
        assert same["heatmap_correlation"]["worst"] == pytest.approx(1)
        assert same["peak_distance"]["moved_share"] == 0


def test_half_precision_is_smaller_and_differs_a_little(result: dict[str, Any]) -> None:
    whole, _, half = result["bundles"]
    assert half["precision"] == "fp16"
    assert half["encoder_bytes"] < 0.6 * whole["encoder_bytes"]
    assert half["total_bytes"] > half["encoder_bytes"]
    assert 0 < half["probability_difference"]["mean"] < 0.02
    assert half["probability_difference"]["mean"] <= half["probability_difference"]["largest"]
    assert half["heatmap_correlation"]["worst"] < half["heatmap_correlation"]["mean"] < 1


def test_times_are_told_and_the_reference_is_one(result: dict[str, Any]) -> None:
    """How long a graph takes is not tested: the machine may be busy."""
    assert result["bundles"][0]["time_ratio"] == {"value": 1, "low": 1, "high": 1}
    for each in result["bundles"]:
        ratio = each["time_ratio"]
        assert 0 < ratio["low"] <= ratio["value"] <= ratio["high"]
        assert each["processor_ms"] > 0
        assert each["latency_ms"] > 0


def test_figures_are_of_what_the_service_would_answer(
    result: dict[str, Any], bundle: Bundle, manifest: Path
) -> None:
    """Read here from the files, image by image, without any code of the comparison."""
    sessions = Sessions(bundle.encoder, bundle.head, device="cpu")
    size = InputGeometry(bundle.manifest.input.height, bundle.manifest.input.width)
    truth, score = [], []
    with manifest.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "val":
                pixels, _ = decode((manifest.parent / row["image"]).read_bytes(), 10**8)
                features = sessions.encode(preprocess(pixels, size).tensor[np.newaxis])
                reading = sessions.read(features, np.zeros((1, 1), np.int32), np.zeros(1, "f4"))
                score.append(float(calibrated(reading.logits, bundle.manifest)))
                truth.append(row["label"] == "malignant")
    expected = roc_auc_score(truth, score)
    assert result["bundles"][0]["auc_per_image"]["value"] == pytest.approx(expected)


def test_change_is_of_the_same_patients_and_so_better_known_than_the_figure(
    result: dict[str, Any],
) -> None:
    half = result["bundles"][2]
    for unit in ("image", "breast"):
        change, auc = half[f"auc_change_per_{unit}"], half[f"auc_per_{unit}"]
        reference = result["bundles"][0][f"auc_per_{unit}"]
        assert change["value"] == pytest.approx(auc["value"] - reference["value"])
        assert change["low"] <= change["value"] <= change["high"]
        assert change["high"] - change["low"] < auc["high"] - auc["low"]


def test_run_folder_holds_plots_and_a_page_with_every_bundle(
    config: CompareConfig, result: dict[str, Any]
) -> None:
    for name in ("auc_against_time.png", "agreement.png"):
        assert (config.run / name).read_bytes().startswith(b"\x89PNG")
    page = (config.run / "report.html").read_text()
    for each in result["bundles"]:
        assert f"{each['name']} {each['version']} ({each['precision']})" in page


def test_what_was_read_is_not_read_again(
    config: CompareConfig, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "read")
    (config.run / "metrics.json").unlink()
    compare(config)
    again = json.loads((config.run / "metrics.json").read_text())
    for one, other in zip(result["bundles"], again["bundles"], strict=True):
        assert one["auc_per_image"] == other["auc_per_image"]
        assert one["heatmap_correlation"] == other["heatmap_correlation"]


# what must fail


def test_every_fault_is_named_at_once_and_nothing_is_written(
    folder: Path, bundles: tuple[Path, ...], manifest: Path, bundle: Bundle, tmp_path: Path
) -> None:
    benign = variant(
        bundle,
        tmp_path / bundle.manifest.name / "9.1.0",
        bytes,
        positive_class=bundle.manifest.classes[0],
    )
    config = CompareConfig(
        run=tmp_path / "run",
        bundles=(bundles[0], tmp_path / "none", bundles[0], benign),
        data=DataConfig(manifest=tmp_path / "none.csv", positive_class="malignant"),
    )
    with pytest.raises(RunError) as caught:
        compare(config)
    said = str(caught.value)
    assert f"{tmp_path / 'none'}/manifest.json is missing" in said
    assert "none.csv cannot be read" in said
    assert "named twice" in said
    assert "positive class" in said
    assert not config.run.exists()


def test_folder_of_another_comparison_is_not_overwritten(
    config: CompareConfig, result: dict[str, Any]
) -> None:
    with pytest.raises(RunError, match="rounds"):
        compare(config.model_copy(update={"rounds": 11}))


def test_bundle_that_was_changed_is_refused(
    bundles: tuple[Path, ...], manifest: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(bundles[2], tmp_path / "9.9.9"))
    (broken / ENCODER).write_bytes(load_bundle(bundles[0]).encoder)
    with pytest.raises(RunError, match="does not match its SHA-256"):
        compare(config_of(tmp_path, (bundles[0], broken), manifest))


# agreement


RAMP = np.arange(12, dtype=np.float32).reshape(1, 3, 4)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (RAMP, 1.0),
        (3 * RAMP + 2, 1.0),
        (-RAMP, -1.0),
        (np.zeros_like(RAMP), 0.0),
        (np.repeat(np.repeat(RAMP, 2, axis=1), 2, axis=2), 1.0),
    ],
    ids=["same", "scaled", "opposite", "flat", "finer grid"],
)
def test_correlation_of_heatmaps(other: NDArray[np.float32], expected: float) -> None:
    assert heatmap_correlation(other, RAMP)[0] == pytest.approx(expected, abs=1e-6)


def test_two_flat_heatmaps_agree() -> None:
    assert heatmap_correlation(np.zeros_like(RAMP), np.ones_like(RAMP))[0] == 1


def test_peak_that_moved_is_found() -> None:
    heatmaps = np.zeros((2, 4, 4), np.float32)
    heatmaps[:, 0, 0] = 1
    moved = heatmaps.copy()
    moved[1, 3, 0] = 2
    nothing = np.zeros(2)
    found = agreement(Readings(nothing, nothing, moved), Readings(nothing, nothing, heatmaps))
    assert found["peak_distance"] == {"mean": 0.375, "moved_share": 0.5, "largest": 0.75}
