"""Every plot is drawn from data at the edges of what there is: many curves, gaps, few cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from training import plots
from training.metrics import Confusion, Estimate
from training.plots import Block, Curve, Rates, Row

ESTIMATE = Estimate(0.7, 0.6, 0.8)


def curve(count: int, label: str = "per breast") -> Curve:
    rng = np.random.default_rng(count)
    truth = np.arange(count, dtype=np.int32) % 2
    return Curve(label, truth, rng.uniform(size=count))


CASES: dict[str, Callable[[Path], Path]] = {
    "roc": lambda to: plots.roc(to, [curve(40), curve(9)], [Rates("balanced", 0.7, 0.6)], "title"),
    "precision_recall": lambda to: plots.precision_recall(to, [curve(40), curve(9)]),
    "reliability": lambda to: plots.reliability(to, [curve(40), curve(300, "b"), curve(4, "c")]),
    "confusion": lambda to: plots.confusion(
        to, {"a": Confusion(5, 1, 2, 9), "b": Confusion(0, 0, 0, 3)}, ("no", "yes")
    ),
    "history": lambda to: plots.history(
        to, [{"epoch": e, "loss": 1 / e, "val_auc_breast": 0.5} for e in (1, 2, 3)]
    ),
    "decision_curve": lambda to: plots.decision_curve(
        to, [0.1, 0.2, 0.3], [ESTIMATE] * 3, [0.3, 0.2, 0.0]
    ),
    "forest": lambda to: plots.forest(
        to, {"density": Block([Row("A", ESTIMATE), Row("B", None)], ESTIMATE)}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_plot_is_a_picture_that_shows_something(name: str, tmp_path: Path) -> None:
    target = tmp_path / f"{name}.png"
    assert CASES[name](target) == target
    pixels: Any = cv2.imread(str(target))
    assert min(pixels.shape[:2]) > 100
    assert pixels.std() > 5
    assert not plots.plt.get_fignums(), "a figure was left open"


def test_plot_changes_with_its_data(tmp_path: Path) -> None:
    one, other = (
        plots.decision_curve(
            tmp_path / f"{value}.png", [0.1, 0.5], [Estimate(value, 0, 1)] * 2, [0, 0]
        )
        for value in (0.2, 0.4)
    )
    assert one.read_bytes() != other.read_bytes()
