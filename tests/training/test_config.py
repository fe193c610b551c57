"""The configuration of a fit: checked before anything starts."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import ValidationError

from training.__main__ import VERBS
from training.config import FitConfig, read_config
from training.simulate import read_intervals

REPOSITORY = Path(__file__).resolve().parents[2]
SMALLEST = 'run = "r"\n[data]\nmanifest = "m.csv"\npositive_class = "malignant"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_smallest_config_has_defaults(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, SMALLEST), FitConfig)
    assert config.model.encoder == "efficientnet_lite0"
    assert config.data.terms == "not stated"


def shipped() -> list[Path]:
    return sorted((REPOSITORY / "training" / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_shipped_config_is_valid_for_its_verb_and_names_no_machines_paths(path: Path) -> None:
    """``<verb>.toml`` or ``<verb>-<what>.toml``."""
    verb = max((verb for verb in VERBS if path.stem.startswith(verb)), key=len)
    module_name, config_name, _, _ = VERBS[verb]
    config = read_config(path, getattr(import_module(f"training.{module_name}"), config_name))
    named = re.findall(r"'(/[^']*)'", str(config.model_dump(mode="json", exclude_defaults=True)))
    assert not named


def test_screening_dates_are_shipped_and_give_real_intervals(tmp_path: Path) -> None:
    intervals = read_intervals(read_config(write(tmp_path, SMALLEST), FitConfig).series.study_dates)
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
        read_config(write(tmp_path, text), FitConfig)
