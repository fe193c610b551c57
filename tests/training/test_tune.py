"""A search of two trials on a dozen made breasts: proposed, kept, resumed, reported."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from pydantic import ValidationError

from tests.training.test_fit import write_images
from training.config import FitConfig, read_config
from training.manifest import ManifestError
from training.run_folder import RunError
from training.tune import TuneConfig, tune

SPACE = {"learning_rate": (1e-3, 1e-2), "blocks": (2, 3), "dropout": (0.0, 0.5)}
pytestmark = pytest.mark.long


def configured(folder: Path, manifest: Path, **changes: Any) -> TuneConfig:
    return TuneConfig.model_validate(
        {
            "run": folder / "search",
            "trials": 2,
            "random_trials": 1,
            "space": SPACE,
            "fit": tiny_fit(folder, manifest),
        }
        | changes
    )


def tiny_fit(folder: Path, manifest: Path) -> dict[str, Any]:
    """The tables of a fit of one short epoch."""
    return {
        "cache": folder / "cache",
        "data": {
            "manifest": manifest,
            "positive_class": "malignant",
            "val_fraction": 0.34,
            "terms": 'made in code, "as is"',
        },
        "model": {
            "encoder": "paper", "blocks": 2, "height": 64, "width": 64, "features": 4,
            "lstm_units": 4,
        },
        "masses": {"share": 0.0},
        "series": {"breasts": 0},
        "optimiser": {
            "epochs": 1, "head_epochs": 0, "images_per_batch": 12, "average_every": 1,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tune")


@pytest.fixture(scope="module")
def config(folder: Path) -> TuneConfig:
    return configured(folder, write_images(folder / "images"))


@pytest.fixture(scope="module")
def searched(config: TuneConfig) -> Path:
    return tune(config)


def trials(run: Path) -> list[dict[str, str]]:
    with (run / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_search_leaves_table_plots_and_report(searched: Path) -> None:
    names = {path.name for path in searched.iterdir()}
    assert names >= {
        "config.json", "study.db", "trial-000", "trial-001", "trials.csv", "best.toml",
        "metrics.json", "history.png", "slices.png", "report.html",
    }  # fmt: skip
    assert "is optimistic" in (searched / "report.html").read_text()


def test_trials_are_fits_with_the_values_of_the_table(searched: Path) -> None:
    for row in trials(searched):
        run = searched / f"trial-{int(row['trial']):03d}"
        fitted = json.loads((run / "config.json").read_text())
        assert fitted["optimiser"]["learning_rate"] == float(row["learning_rate"])
        assert fitted["model"]["blocks"] == int(row["blocks"])
        assert fitted["model"]["dropout"] == float(row["dropout"])
        for name, (low, high) in SPACE.items():
            assert low <= float(row[name]) <= high
        auc = json.loads((run / "metrics.json").read_text())["auc_per_breast"]
        assert auc["value"] == float(row["auc_per_breast"])


def test_best_trial_is_a_config_that_fit_reads(searched: Path) -> None:
    best = json.loads((searched / "metrics.json").read_text())
    rows = trials(searched)
    assert best["auc_per_breast"]["value"] == max(float(row["auc_per_breast"]) for row in rows)
    written = read_config(searched / "best.toml", FitConfig)
    assert written.run == searched / "best"
    trial = searched / f"trial-{best['best_trial']:03d}"
    fitted = FitConfig.model_validate_json((trial / "config.json").read_text())
    assert written.model_copy(update={"run": fitted.run}) == fitted


def test_search_that_was_stopped_goes_on_with_the_trial_it_had_begun(
    config: TuneConfig, searched: Path
) -> None:
    before = trials(searched)
    first = (searched / "trial-000" / "metrics.json").stat().st_mtime_ns
    forget_all_trials_but_one(searched / "study.db")
    shutil.rmtree(searched / "trial-001")
    tune(config)
    assert (searched / "trial-000" / "metrics.json").stat().st_mtime_ns == first, "fitted again"
    again = trials(searched)
    for name in SPACE:
        assert [row[name] for row in again] == [row[name] for row in before]


def forget_all_trials_but_one(database: Path) -> None:
    """Put a study in the place of ``database`` as it was before its second trial ended."""
    storage = f"sqlite:///{database}"
    first = optuna.load_study(study_name="tune", storage=storage).trials[0]
    database.unlink()
    optuna.create_study(storage=storage, study_name="tune", direction="maximize").add_trial(first)


def test_search_is_not_mixed_with_one_of_another_space(
    config: TuneConfig, searched: Path, folder: Path
) -> None:
    other = configured(folder, config.fit.data.manifest, space={"dropout": (0.0, 0.1)})
    with pytest.raises(RunError, match="space"):
        tune(other)


def test_every_fault_of_a_space_is_told_at_once(folder: Path) -> None:
    space = {"learning_rate": (0.0, 1e-2), "blocks": (5, 3), "images_per_batch": (1, 8)}
    with pytest.raises(ValidationError) as found:
        configured(folder, Path("m.csv"), space=space)
    text = str(found.value)
    assert "optimiser.learning_rate" in text
    assert "blocks is from 5 to 3" in text
    assert "optimiser.images_per_batch" in text


@pytest.mark.parametrize(
    ("change", "space", "fault"),
    [
        ({}, {}, "nothing to search"),
        ({"encoder": "efficientnet_lite0"}, {"blocks": (2, 3)}, "paper encoder"),
        ({"architecture": "cnn_only"}, {"lstm_units": (2, 3)}, "has no LSTM"),
    ],
)
def test_space_that_changes_nothing_is_refused(
    folder: Path, change: dict[str, str], space: dict[str, Any], fault: str
) -> None:
    fit = tiny_fit(folder, Path("m.csv"))
    fit["model"] |= change
    with pytest.raises(ValidationError, match=fault):
        configured(folder, Path("m.csv"), space=space, fit=fit)


def test_run_and_backend_belong_to_the_top_of_the_file(folder: Path) -> None:
    fit = tiny_fit(folder, Path("m.csv")) | {"run": "somewhere", "backend": "jax"}
    with pytest.raises(ValidationError, match="run, backend: belongs to the top"):
        configured(folder, Path("m.csv"), fit=fit)


def test_faulty_manifest_leaves_no_run(folder: Path, config: TuneConfig) -> None:
    broken = folder / "broken.csv"
    broken.write_text(config.fit.data.manifest.read_text().replace(",L,CC,", ",left,CC,", 1))
    faulty = configured(folder, broken, run=folder / "never")
    with pytest.raises(ManifestError, match="line 2"):
        tune(faulty)
    assert not (folder / "never").exists()
