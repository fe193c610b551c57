"""The configuration of a fit: checked before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from training.config import read_config
from training.simulate import read_intervals

REPOSITORY = Path(__file__).resolve().parents[2]
SMALLEST = 'run = "r"\n[data]\nmanifest = "m.csv"\npositive_class = "malignant"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_smallest_config_has_defaults(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, SMALLEST))
    assert config.model.encoder == "efficientnet_lite0"
    assert config.data.terms == "not stated"


def test_shipped_configs_are_valid_and_name_no_machines_paths() -> None:
    paths = list((REPOSITORY / "training" / "configs").glob("*.toml"))
    assert paths
    for path in paths:
        config = read_config(path)
        assert not config.run.is_absolute()
        assert not config.data.manifest.is_absolute()


def test_screening_dates_are_shipped_and_give_real_intervals(tmp_path: Path) -> None:
    intervals = read_intervals(read_config(write(tmp_path, SMALLEST)).series.study_dates)
    assert len(intervals) > 100
    assert 300 < sorted(intervals)[len(intervals) // 2] < 800


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (SMALLEST + "[model]\nencodr = 'paper'\n", "encodr"),
        (SMALLEST + "[model]\nencoder = 'resnet'\n", "encoder"),
        (SMALLEST + "[model]\nheight = 100\n", "height"),
        (SMALLEST + "[series]\nshare = 1.0\n", "share"),
        (SMALLEST + "[optimiser]\nepochs = 0\n", "epochs"),
        (SMALLEST + "[optimizer]\nepochs = 5\n", "optimizer"),
        ("run = 'r'\n", "data"),
    ],
)
def test_fault_of_a_config_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        read_config(write(tmp_path, text))
