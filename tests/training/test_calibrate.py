"""A bundle fitted to a site's data: the same weights, another temperature, or nothing at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from app.bundle import ENCODER, HEAD, MODEL_CARD, Bundle, load_bundle
from app.figures import Figures
from tests.serving import serving
from tests.training.cohort import write_cohort
from training import metrics, recalibrated
from training.calibrate import MIN_PATIENTS, CalibrateConfig, calibrate, cross_fit
from training.config import DataConfig
from training.figures import Cases
from training.page import PAGE
from training.readings import breast_cases, check, read_all, start_sessions
from training.recalibrated import CALIBRATION, recalibrated_card
from training.run_folder import RunError

PATIENTS = 2 * MIN_PATIENTS  # ten with cancer


def config(folder: Path, bundle: Path, manifest: Path, version: str = "1.0.0") -> CalibrateConfig:
    data = DataConfig(manifest=manifest, positive_class="malignant", terms="made in code")
    target = folder / "store" / "site" / version
    return CalibrateConfig(run=folder / "run", bundle=bundle, to=target, data=data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrate")


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Path:
    return write_cohort(folder / "images", PATIENTS)


@pytest.fixture(scope="module")
def made(folder: Path, bundle_folder: Path, manifest: Path) -> Bundle:
    calibrate(config(folder, bundle_folder, manifest))
    return load_bundle(folder / "store" / "site" / "1.0.0")


@pytest.fixture(scope="module")
def found(made: Bundle, folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run" / "metrics.json").read_text())
    return content


def test_weights_are_the_same_and_nothing_of_the_training_is_lost(
    made: Bundle, bundle: Bundle
) -> None:
    for name in (ENCODER, HEAD, "metrics.json", "history.csv"):
        assert (made.folder / name).read_bytes() == (bundle.folder / name).read_bytes()
    assert set(bundle.manifest.files) < set(made.manifest.files)
    assert (made.manifest.name, made.manifest.version) == ("site", "1.0.0")
    assert made.manifest.verification == bundle.manifest.verification


def test_figures_are_of_the_new_temperature_and_thresholds(made: Bundle, bundle: Bundle) -> None:
    assert made.figures
    figures = Figures.model_validate_json(made.figures)
    assert figures.operating_points == made.manifest.operating_points
    assert figures.measured_on.startswith(f"{2 * PATIENTS - 1} breasts")
    assert made.figures != bundle.figures


def test_temperature_is_another_and_fits_better(
    made: Bundle, bundle: Bundle, found: dict[str, Any]
) -> None:
    assert made.manifest.temperature == found["temperature"]["after"]
    assert abs(np.log(made.manifest.temperature / bundle.manifest.temperature)) > 0.05
    assert found["auc"]["after"]["value"] == pytest.approx(found["auc"]["before"]["value"])
    assert len(found["temperature"]["cross_fitted"]) == 5


def test_manifest_records_where_it_was_measured(made: Bundle, bundle: Bundle) -> None:
    data = made.manifest.data["calibration"]
    assert data["of"]["sha256"] == bundle.sha256
    assert (data["patients"], data["positive_patients"]) == (PATIENTS, 11)
    assert data["breasts"] == 2 * PATIENTS - 1
    assert data["prevalence"] == made.manifest.data["prevalence"] == pytest.approx(11 / 39)
    assert len(data["fingerprint_sha256"]) == 64
    assert made.manifest.data["splits"] == bundle.manifest.data["splits"]
    assert f"{PATIENTS} patients" in made.manifest.operating_points[0].measured_on


def test_card_says_what_was_recalibrated_on_what(made: Bundle, bundle: Bundle) -> None:
    card = (made.folder / MODEL_CARD).read_text()
    old = (bundle.folder / MODEL_CARD).read_text()
    assert card.startswith("# site 1.0.0\n")
    assert card.index("## Calibration of 1.0.0") < card.index("## Data and terms")
    for text in (bundle.sha256, f"{PATIENTS} patients", "made in code", "Cross-fitted"):
        assert text in card
    assert card.endswith(old[old.index("\n## ") :])


def test_reading_with_the_new_version_finds_what_it_promises(
    made: Bundle, manifest: Path, tmp_path: Path, found: dict[str, Any]
) -> None:
    data = DataConfig(manifest=manifest, positive_class="malignant")
    asked = check(made.folder, data, "all", 0, [])
    assert asked is not None
    sessions = start_sessions(made, "cpu")
    readings, _ = read_all(tmp_path, made, sessions, asked.breasts, "")
    cases = breast_cases(readings, made.manifest)
    brier = found["brier"]["after"]["value"]
    assert metrics.brier(cases.truth, cases.probability) == pytest.approx(brier)
    for point in made.manifest.operating_points:
        reached = metrics.sensitivity_specificity(cases.truth, cases.probability, point.threshold)
        assert reached == (point.sensitivity, point.specificity)


def test_new_version_is_served(made: Bundle, manifest: Path, tmp_path: Path) -> None:
    with serving(made.folder, tmp_path, gate="warn") as service:
        image = (manifest.parent / "p0-L-CC.png").read_bytes()
        answer = service.post("/predict", content=image).json()
    assert (answer["model"]["name"], answer["model"]["version"]) == ("site", "1.0.0")
    assert answer["prediction"]["operating_point"]["threshold"] == pytest.approx(
        made.manifest.operating_points[0].threshold, abs=1e-3
    )


def test_run_holds_a_page_and_the_bundle_its_figures(made: Bundle, folder: Path) -> None:
    page = (folder / "run" / PAGE).read_text()
    assert page.count("data:image/png;base64") == 3
    stored = json.loads((made.folder / CALIBRATION).read_text())
    assert (
        stored["operating_points"]
        == json.loads((folder / "run" / "metrics.json").read_text())["operating_points"]
    )
    assert str(folder) not in (made.folder / CALIBRATION).read_text()
    assert str(folder) not in (made.folder / "manifest.json").read_text()


# what is refused


def test_version_is_never_overwritten(
    made: Bundle, folder: Path, bundle_folder: Path, manifest: Path
) -> None:
    with pytest.raises(RunError, match="never overwritten"):
        calibrate(config(folder, bundle_folder, manifest))
    assert load_bundle(made.folder).sha256 == made.sha256


def test_calibration_that_fails_at_the_end_leaves_no_half_version(
    made: Bundle, folder: Path, bundle_folder: Path, manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(recalibrated, "seal", full)
    chosen = config(folder, bundle_folder, manifest, "1.0.1")
    chosen = chosen.model_copy(update={"run": folder / "other"})
    (folder / "other").mkdir()
    (folder / "other" / "readings.jsonl").write_bytes(
        (folder / "run" / "readings.jsonl").read_bytes()
    )
    with pytest.raises(OSError, match="no space"):
        calibrate(chosen)
    assert [path.name for path in made.folder.parent.iterdir()] == ["1.0.0"]


def test_few_patients_of_a_class_are_refused_before_anything_is_read(
    tmp_path: Path, bundle_folder: Path
) -> None:
    manifest = write_cohort(tmp_path / "images", 9)
    chosen = config(tmp_path, bundle_folder, manifest).model_copy(
        update={"to": tmp_path / "store" / "site" / "latest"}
    )
    with pytest.raises(RunError) as caught:
        calibrate(chosen)
    for fault in (
        "latest is not <store>/<name>/<version>",
        "5 patient(s) have a breast with the positive class; at least 10 are needed",
        "8 patient(s) have a breast without the positive class",
    ):
        assert fault in str(caught.value)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "store").exists()


def test_data_of_the_training_are_refused(
    tmp_path: Path, bundle: Bundle, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on = str(bundle.manifest.data["fingerprint_sha256"])
    monkeypatch.setattr("training.manifest.fingerprint", lambda images: trained_on)
    with pytest.raises(RunError, match="was trained on"):
        calibrate(config(tmp_path, bundle.folder, manifest))


# cross-fitting


def sample(patients: int, seed: int = 0) -> tuple[Cases, NDArray[np.float32]]:
    """Two breasts a patient, overconfident logits."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 1.5, 2 * patients)
    truth = (rng.uniform(size=odds.size) < expit(odds)).astype(np.int32)
    names = tuple(f"p{i // 2}" for i in range(odds.size))
    logits = np.stack([np.zeros_like(odds), 2 * odds], axis=1).astype(np.float32)
    return Cases(truth, expit(2 * odds), names, names), logits


def test_cross_fit_finds_the_temperature_in_every_fold(bundle: Bundle) -> None:
    cases, logits = sample(2000)
    found = cross_fit(cases, logits, bundle.manifest, seed=0)
    assert found.temperatures == pytest.approx((2.0,) * 5, rel=0.15)
    assert found.probability == pytest.approx(expit(logits[:, 1] / 2), abs=0.03)
    reached = found.called["sensitivity-90"][cases.truth == 1].mean()
    assert reached == pytest.approx(0.9, abs=0.03)


def test_cross_fit_does_not_look_at_the_patient_it_scores(bundle: Bundle) -> None:
    """Turning a patient's labels round must not change what that patient gets."""
    cases, logits = sample(30)
    before = cross_fit(cases, logits, bundle.manifest, seed=0)
    changed = 0
    for patient in range(0, 60, 2):
        if cases.truth[patient] == cases.truth[patient + 1]:
            continue  # else the folds would be drawn otherwise
        truth = cases.truth.copy()
        truth[[patient, patient + 1]] = truth[[patient + 1, patient]]
        turned = Cases(truth, cases.probability, cases.patients, cases.names)
        after = cross_fit(turned, logits, bundle.manifest, seed=0)
        rows = [patient, patient + 1]
        np.testing.assert_array_equal(after.probability[rows], before.probability[rows])
        changed += not np.array_equal(after.probability, before.probability)
    assert changed > 5, "or the labels do not matter at all"


def test_card_without_sections_gets_one(found: dict[str, Any]) -> None:
    card = recalibrated_card("# x 1.0.0\nOne line.\n", found)
    assert card.startswith("# site 1.0.0\nOne line.\n")
    assert "## Calibration of 1.0.0" in card
