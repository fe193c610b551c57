"""Two folds of two architectures on a dozen made breasts: fitted, scored, resumed, compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.training.test_fit import PATIENTS, write_images
from tests.training.test_tune import tiny_fit
from training.crossval import CrossvalConfig, crossval
from training.manifest import ManifestError

ARCHITECTURES = ("hybrid", "rnn_only")
pytestmark = pytest.mark.long


def configured(folder: Path, manifest: Path, **changes: Any) -> CrossvalConfig:
    return CrossvalConfig.model_validate(
        {
            "run": folder / "crossval",
            "folds": 2,
            "architectures": ARCHITECTURES,
            "fit": tiny_fit(folder, manifest),
        }
        | changes
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crossval")


@pytest.fixture(scope="module")
def config(folder: Path) -> CrossvalConfig:
    return configured(folder, with_machines(write_images(folder / "images")))


def with_machines(manifest: Path) -> Path:
    """The manifest with a column for a subgroup, and a split, which is to be ignored."""
    header, *rows = manifest.read_text().splitlines()
    rows = [f"{row},train,machine-{number % 2}" for number, row in enumerate(rows)]
    manifest.write_text("\n".join([f"{header},split,machine", *rows]))
    return manifest


@pytest.fixture(scope="module")
def crossed(config: CrossvalConfig) -> Path:
    return crossval(config)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_patient_is_scored_by_a_model_that_never_saw_it(
    crossed: Path, architecture: str
) -> None:
    scored: list[str] = []
    for fold in (1, 2):
        run = crossed / architecture / f"fold-{fold}"
        tested = [row["patient_id"] for row in table(run / "test_scores.csv")]
        seen = {row["patient_id"] for row in table(crossed / "folds" / f"fold-{fold}.csv")}
        chosen_on = {row["patient_id"] for row in table(run / "val_scores.csv")}
        assert chosen_on < seen
        assert not seen & set(tested)
        scored += tested
    assert sorted(scored) == sorted(f"p{patient}" for patient in range(PATIENTS))


def test_manifest_of_a_fold_keeps_every_column(crossed: Path) -> None:
    rows = table(crossed / "folds" / "fold-1.csv")
    assert {row["machine"] for row in rows} == {"machine-0", "machine-1"}
    assert {row["split"] for row in rows} == {"train", "val"}


def test_fits_differ_in_architecture_and_fold_alone(crossed: Path) -> None:
    hybrid, recurrent = (
        json.loads((crossed / name / "fold-1" / "config.json").read_text())
        for name in ARCHITECTURES
    )
    assert hybrid["model"].pop("architecture") == "hybrid"
    assert recurrent["model"].pop("architecture") == "rnn_only"
    assert hybrid.pop("run") != recurrent.pop("run")
    assert hybrid == recurrent


def test_metrics_hold_every_fold_and_the_comparison(crossed: Path) -> None:
    found = json.loads((crossed / "metrics.json").read_text())
    assert found["counts"] == {
        "images": 24, "breasts": 12, "positive_breasts": 6, "patients": 12,
    }  # fmt: skip
    assert set(found["architectures"]) == set(ARCHITECTURES)
    for of_one in found["architectures"].values():
        assert len(of_one["folds"]["auc"]["per_fold"]) == len(of_one["thresholds"]) == 2
    (comparison,) = found["comparisons"]
    assert (comparison["a"], comparison["b"]) == ARCHITECTURES
    assert comparison["delong"]["auc_a"] == pytest.approx(
        found["architectures"]["hybrid"]["pooled"]["auc"]["value"]
    )


def test_report_says_what_single_exams_cannot_show(crossed: Path) -> None:
    page = (crossed / "report.html").read_text()
    assert "hybrid against rnn_only" in page
    assert "differ little by construction" in page
    assert page.count("data:image/png") == 2


def test_resumed_run_fits_only_what_has_no_scores(config: CrossvalConfig, crossed: Path) -> None:
    before = json.loads((crossed / "metrics.json").read_text())
    states = {path: path.stat().st_mtime_ns for path in crossed.glob("*/fold-*/state.json")}
    assert len(states) == 4
    missing = crossed / "hybrid" / "fold-2" / "test_scores.csv"
    missing.unlink()
    crossval(config)
    assert missing.exists()
    # The fit itself was finished, so not even this one is trained again
    assert {path: path.stat().st_mtime_ns for path in states} == states
    after = json.loads((crossed / "metrics.json").read_text())
    for name in ARCHITECTURES:
        assert after["architectures"][name]["thresholds"] == pytest.approx(
            before["architectures"][name]["thresholds"], abs=1e-5
        )


def test_more_folds_than_the_data_have_patients_leave_no_run(
    folder: Path, config: CrossvalConfig
) -> None:
    faulty = configured(folder, config.fit.data.manifest, folds=13, run=folder / "never")
    with pytest.raises(ManifestError, match="13 folds"):
        crossval(faulty)
    assert not (folder / "never").exists()


def test_architecture_named_twice_is_refused(folder: Path) -> None:
    with pytest.raises(ValidationError, match="named twice"):
        configured(folder, Path("m.csv"), architectures=("hybrid", "hybrid"))
