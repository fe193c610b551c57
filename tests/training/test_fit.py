"""From a manifest to a service that answers: the real commands, on a dozen made breasts."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.bundle import load_bundle
from tests.pictures import breast, png
from tests.serving import serving
from training.manifest import COLUMNS

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENTS = 12
SECONDS = 600


def write_images(folder: Path) -> Path:
    """Twelve patients with two views of one breast; every other one has a bright spot."""
    folder.mkdir()
    rows = []
    for patient in range(PATIENTS):
        malignant = patient % 2 == 0
        for view in ("CC", "MLO"):
            name = f"{patient}-{view}.png"
            spots = [(140 + 3 * patient, 70)] if malignant else []
            seed = 2 * patient + (view == "CC")
            (folder / name).write_bytes(png(breast(300, 200, seed=seed, spots=spots)))
            label = "malignant" if malignant else "no_cancer"
            rows.append((name, f"p{patient}", "", "L", view, label))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return manifest


def write_config(folder: Path, run: str, manifest: Path) -> Path:
    """The configuration of a run of two short epochs."""
    config = folder / f"{run}.toml"
    config.write_text(
        f"""
run = "{folder / run}"
cache = "{folder / "cache"}"
[data]
manifest = "{manifest}"
positive_class = "malignant"
val_fraction = 0.34
terms = "made in code"
[model]
encoder = "paper"
height = 64
width = 64
features = 8
lstm_units = 6
[masses]
share = 0.3
[series]
breasts = 6
acquisitions = 12
val_count = 20
max_exams = 3
epochs = 2
[optimiser]
epochs = 2
images_per_batch = 6
average_every = 1
"""
    )
    return config


def fit(config: Path) -> subprocess.CompletedProcess[str]:
    """Run ``python -m training fit`` to its end."""
    return command("training", "fit", "--config", str(config))


def kill_after_first_epoch(config: Path, run: Path) -> None:
    """Start the same command, and kill it once the first epoch is written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "training", "fit", "--config", str(config)],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + SECONDS
    try:
        while not (run / "state.json").exists():
            assert process.poll() is None, "the fit ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def history(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit")


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Path:
    return write_images(folder / "images")


@pytest.fixture(scope="module")
def whole(folder: Path, manifest: Path) -> Path:
    """The folder of a run of two epochs without a break."""
    ended = fit(write_config(folder, "whole", manifest))
    assert ended.returncode == 0, ended.stderr
    return folder / "whole"


def test_run_folder_holds_everything_that_it_promises(whole: Path) -> None:
    expected = {
        "config.json", "data.json", "last.keras", "average.npz", "state.json", "best-image.keras",
        "mass-bank.npz", "real-bank.npz", "val-series.npz", "best.keras", "history.csv",
        "reading.csv", "val_scores.csv", "metrics.json", "roc.png", "reliability.png",
        "history.png", "verification.npz", "calibration.npz", "figures.json",
    }  # fmt: skip
    assert {path.name for path in whole.iterdir()} == expected


def test_run_records_data_splits_seed_and_terms(whole: Path) -> None:
    data = json.loads((whole / "data.json").read_text())
    assert data["classes"] == ["no_cancer", "malignant"]
    assert data["terms"] == "made in code"
    assert len(data["fingerprint_sha256"]) == 64
    assert data["splits"]["val"] == {
        "images": 8, "patients": 4, "breasts": 4, "per_class": {"no_cancer": 4, "malignant": 4},
    }  # fmt: skip
    assert data["splits"]["train"]["patients"] == 8
    config = json.loads((whole / "config.json").read_text())
    assert isinstance(config["optimiser"]["seed"], int)


def test_history_has_a_row_per_epoch(whole: Path) -> None:
    rows = history(whole)
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert 0 < row["loss"] < 10
        assert 0 <= row["val_auc_breast"] <= 1


@pytest.mark.long
def test_run_that_was_killed_and_resumed_ends_like_one_without_a_break(
    folder: Path, manifest: Path, whole: Path
) -> None:
    config = write_config(folder, "broken", manifest)
    kill_after_first_epoch(config, folder / "broken")
    state = json.loads((folder / "broken" / "state.json").read_text())
    assert state["epoch"] == 1
    resumed = fit(config)
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 1/2" not in resumed.stderr, "it began again"
    found = history(folder / "broken")
    assert len(found) == 2
    for row, other in zip(found, history(whole), strict=True):
        assert row == pytest.approx(other, abs=1e-3)


def test_fault_of_the_manifest_ends_the_command_with_its_line(folder: Path, manifest: Path) -> None:
    broken = manifest.with_name("broken.csv")
    broken.write_text(manifest.read_text().replace(",L,CC,", ",left,CC,", 1))
    ended = fit(write_config(folder, "never", broken))
    assert ended.returncode == 2
    assert "line 2: laterality is 'left'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_fault_of_the_config_ends_the_command_and_is_named(folder: Path) -> None:
    config = folder / "faulty.toml"
    config.write_text('run = "r"\n[data]\nmanifest = "m"\npositive_class = "x"\nsurprise = 1\n')
    ended = command("training", "fit", "--config", str(config))
    assert ended.returncode != 0
    assert "surprise" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_trained_run_is_exported_and_served(whole: Path, tmp_path: Path) -> None:
    target = tmp_path / "store" / "made" / "0.0.1"
    ended = command("export", "--model", str(whole), "--to", str(target))
    assert ended.returncode == 0, ended.stderr
    assert "verified on" in ended.stdout
    manifest = load_bundle(target).manifest
    assert manifest.verification["cases"] == 16
    assert manifest.data["terms"] == "made in code"
    with serving(target, tmp_path, gate="warn") as service:
        answer = service.post("/predict", content=png(breast(300, 200))).json()
    assert answer["model"]["name"] == "made"
    assert set(answer["probabilities"]) == {"no_cancer", "malignant"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
