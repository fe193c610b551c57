"""Subgroups by a column of the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from training.figures import Cases
from training.manifest import LabelledImage
from training.metrics import auc
from training.subgroups import figures_by_group, groups_of, value_of


@dataclass(frozen=True)
class Point:
    name: str
    threshold: float


def test_ages_are_in_the_bands_of_screening() -> None:
    values = ["49.9", "50", "59", "60", "70", "81", "not recorded", "mixed"]
    assert groups_of("age", values) == {
        "under 50": [0], "50 to 59": [1, 2], "60 to 69": [3], "70 and over": [4, 5],
        "mixed": [7], "not recorded": [6],
    }  # fmt: skip


def test_values_are_groups_in_the_order_of_their_numbers() -> None:
    assert list(groups_of("machine", ["210", "29", "29", "48"])) == ["29", "48", "210"]
    assert groups_of("density", ["C", "A", "not recorded"]) == {
        "A": [1], "C": [0], "not recorded": [2],
    }  # fmt: skip


def test_many_numbers_are_cut_into_quarters() -> None:
    found = groups_of("thickness", [f"{i}.5" for i in range(40)])
    assert [len(indices) for indices in found.values()] == [10, 10, 10, 10]
    assert [indices[0] for indices in found.values()] == [0, 10, 20, 30]


def test_many_words_are_no_subgroups() -> None:
    with pytest.raises(ValueError, match="name has 21 values"):
        groups_of("name", [f"n{i}" for i in range(21)])


def test_value_of_images_that_differ_is_mixed() -> None:
    images = [
        LabelledImage(Path("x"), "a", None, "L", view, "normal", attributes={"density": density})
        for view, density in (("CC", ""), ("MLO", ""))
    ]
    assert value_of(images, "laterality") == "L"
    assert value_of(images, "view") == "mixed"
    assert value_of(images, "density") == "not recorded"


def test_group_with_few_cases_of_a_class_has_counts_and_no_figure() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([1, 0, 1, 0], [10, 10, 9, 30]).astype(np.int32)
    score = rng.uniform(size=59)
    names = tuple(map(str, range(59)))
    cases = Cases(truth, score, names, names)
    whole, few = figures_by_group(
        cases, {"a": list(range(20)), "b": list(range(20, 59))}, Point("balanced", 0.5)
    )
    assert whole["auc"]["value"] == pytest.approx(auc(truth[:20], score[:20]))
    assert whole["sensitivity"]["value"] == pytest.approx((score[:10] >= 0.5).mean())
    assert (few["cases"], few["positives"], few["patients"]) == (39, 9, 39)
    assert few["auc"] is few["sensitivity"] is few["specificity"] is None
