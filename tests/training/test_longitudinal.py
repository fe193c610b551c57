"""Does time matter? Every reader on the same series, from a small fit of made breasts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.hybrids import small_hybrid
from tests.training.test_fit import write_config, write_images
from training import exam_bank
from training.config import FitConfig, read_config
from training.exam_series import pooled_encoder
from training.fit import load_data
from training.longitudinal import CONTROLS, LongitudinalConfig, longitudinal
from training.run_folder import RunError, open_run

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fit leaves that ``longitudinal`` needs; the model is not trained."""
    folder = tmp_path_factory.mktemp("longitudinal")
    manifest = write_images(folder / "images")
    config = read_config(write_config(folder, "fit", manifest), FitConfig)
    run = open_run(config.run, config)
    train, _, _ = load_data(config)
    model = small_hybrid()
    model.save(run / "best.keras")
    lesion_free = [int(i) for i in np.flatnonzero(train.labels == 0)][:3]
    bank = exam_bank.bank_of_masses(pooled_encoder(model), train, lesion_free, 12, seed=0)
    exam_bank.save(bank, run / "mass-bank.npz")
    return run


def config_for(fitted: Path) -> LongitudinalConfig:
    return LongitudinalConfig(
        run=fitted.parent / "run", fit=fitted, test_series=20, max_exams=3, epochs=1, seeds=1
    )


@pytest.fixture(scope="module")
def found(fitted: Path) -> dict[str, Any]:
    run = longitudinal(config_for(fitted))
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return metrics


def test_every_reader_is_measured_at_every_number_of_exams(found: dict[str, Any]) -> None:
    assert set(found["auc"]) == {*CONTROLS, "shipped"}
    for by_length in found["auc"].values():
        assert set(by_length) == {"1", "2", "3", "two or more"}
        for figure in by_length.values():
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1


def test_unchanged_priors_of_a_single_exam_change_nothing(found: dict[str, Any]) -> None:
    alone = found["unchanged_priors"]["1"]
    assert alone["change"]["value"] == 0
    assert set(found["unchanged_priors"]) == {"1", "2", "3"}


def test_page_says_that_the_series_are_simulated(fitted: Path, found: dict[str, Any]) -> None:
    page = (fitted.parent / "run" / "report.html").read_text()
    assert "Simulated series only" in page
    assert "not a medical device" in page
    for control in CONTROLS.values():
        assert control.title in page
    assert (fitted.parent / "run" / "auc_by_exams.png").read_bytes().startswith(b"\x89PNG")


def test_second_run_goes_on_from_what_is_there(fitted: Path, found: dict[str, Any]) -> None:
    stored = fitted.parent / "run" / "scores-rnn_only.npz"
    before = stored.stat().st_mtime_ns
    longitudinal(config_for(fitted))
    assert stored.stat().st_mtime_ns == before
    assert json.loads((fitted.parent / "run" / "metrics.json").read_text()) == found


def test_folder_that_is_no_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="finished fit"):
        longitudinal(LongitudinalConfig(run=tmp_path / "run", fit=tmp_path))
