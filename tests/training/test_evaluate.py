"""A bundle measured on labelled images: what is measured is what the service answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.bundle import Bundle
from app.figures import Figures
from tests.serving import Service
from tests.training.cohort import DATES, read_manifest, write_cohort, write_manifest
from training.bundle_figures import OTHER_CASES
from training.config import DataConfig
from training.evaluate import EvaluateConfig, evaluate
from training.metrics import auc
from training.page import PAGE
from training.run_folder import RunError

PATIENTS = 11
IMAGES = 3 * (PATIENTS - 1) + len(DATES)
QUIET = {"overlay": "none", "map": "false"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "images", PATIENTS)


def config(run: Path, bundle: Path, manifest: Path, **more: Any) -> EvaluateConfig:
    data = DataConfig(manifest=manifest, positive_class="malignant", terms="made in code")
    chosen: dict[str, Any] = {"split": "all", "subgroups": ("view", "density", "age")} | more
    return EvaluateConfig(run=run, bundle=bundle, data=data, **chosen)


@pytest.fixture(scope="module")
def run(manifest: Path, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluate(config(tmp_path_factory.mktemp("runs") / "run", bundle_folder, manifest))


def scores(run: Path, unit: str) -> dict[str, tuple[int, float]]:
    """Truth and probability by name."""
    with (run / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["unit"] == unit]
    found = {row["name"]: (int(row["truth"]), float(row["probability"])) for row in rows}
    assert len(found) == len(rows)
    return found


def metrics_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


def test_image_scores_as_the_service_answers_it(run: Path, manifest: Path, server: Service) -> None:
    measured = scores(run, "image")
    assert len(measured) == IMAGES
    for name in ("p0-L-CC.png", "p3-R-CC.png"):
        data = (manifest.parent / name).read_bytes()
        answer = server.post("/predict", content=data, params=QUIET).json()
        assert measured[name][1] == pytest.approx(answer["calibrated_probability"], abs=1e-5)


@pytest.mark.parametrize(
    ("breast", "exams"),
    [
        ("p0-L", {"2020-01-01": ["p0-L-CC.png", "p0-L-MLO.png"]}),
        (f"p{PATIENTS - 1}-L", {day: [f"p{PATIENTS - 1}-L-CC-{day}.png"] for day in DATES}),
    ],
    ids=["two views of one exam", "three exams"],
)
def test_breast_scores_as_the_service_answers_it(
    run: Path, manifest: Path, server: Service, breast: str, exams: dict[str, list[str]]
) -> None:
    series = {"exams": [{"date": day, "files": files} for day, files in exams.items()]}
    names = [name for files in exams.values() for name in files]
    answer = server.post(
        "/predict/series",
        files=[("files", (name, (manifest.parent / name).read_bytes())) for name in names],
        data={"series": json.dumps(series)},
        params=QUIET,
    ).json()
    truth, probability = scores(run, "breast")[breast]
    assert probability == pytest.approx(answer["calibrated_probability"], abs=1e-5)
    assert truth == 1
    dated = [name for name in scores(run, "exam") if name.startswith(f"p{PATIENTS - 1}-")]
    assert dated == [f"p{PATIENTS - 1}-{day}" for day in DATES]


def test_exam_is_the_more_suspicious_of_its_breasts(run: Path) -> None:
    exams, breasts = scores(run, "exam"), scores(run, "breast")
    for patient in range(PATIENTS - 1):
        left, right = breasts[f"p{patient}-L"], breasts[f"p{patient}-R"]
        assert exams[f"p{patient}"] == (max(left[0], right[0]), max(left[1], right[1]))


def test_figures_are_of_the_scores_that_were_written(run: Path, bundle: Bundle) -> None:
    found = metrics_of(run)
    for unit in ("image", "breast", "exam"):
        truth, probability = map(np.array, zip(*scores(run, unit).values(), strict=True))
        figures = found["units"][unit]
        assert figures["auc"]["value"] == pytest.approx(auc(truth, probability))
        assert figures["counts"]["cases"] == len(truth)
        for point in bundle.manifest.operating_points:
            at = figures["operating_points"][point.name]
            called = probability >= point.threshold
            assert at["confusion"]["true_positive"] == int((called & (truth == 1)).sum())
    assert found["bundle"]["sha256"] == bundle.sha256
    assert found["data"]["series_of_several_exams"] == 1


def test_subgroups_are_counted_by_their_unit(run: Path) -> None:
    by = metrics_of(run)["subgroups"]
    assert {c: b["unit"] for c, b in by.items()} == {
        "view": "image", "density": "breast", "age": "breast",
    }  # fmt: skip
    cases = {row["group"]: row["cases"] for row in by["view"]["groups"]}
    assert cases == {"CC": 2 * (PATIENTS - 1) + len(DATES), "MLO": PATIENTS - 1}
    assert [row["group"] for row in by["age"]["groups"]] == ["under 50", "50 to 59"]
    assert by["density"]["groups"][0]["auc"] is None


def test_run_holds_plots_and_a_page_with_them(run: Path) -> None:
    pictures = {path.name for path in run.glob("*.png")}
    assert pictures == {
        "roc.png", "precision_recall.png", "reliability.png", "confusion.png",
        "decision_curve.png", "subgroups.png", "history.png",
    }  # fmt: skip
    page = (run / PAGE).read_text()
    assert page.count("data:image/png;base64") == len(pictures)
    for text in ("too few cases", "made in code", "not a medical device"):
        assert text in page


def test_everything_that_is_wrong_is_told_at_once_and_before_anything_is_written(
    tmp_path: Path, manifest: Path
) -> None:
    rows = read_manifest(manifest)
    rows[0][3] = "left"
    broken = write_manifest(tmp_path / "broken.csv", rows)
    data = DataConfig(manifest=broken, image_root=manifest.parent, positive_class="malignant")
    wrong = EvaluateConfig(
        run=tmp_path / "run", bundle=tmp_path / "none", data=data, history=tmp_path / "no.csv"
    )
    with pytest.raises(RunError) as caught:
        evaluate(wrong)
    for fault in ("manifest.json is missing", "line 2: laterality", "no.csv is missing"):
        assert fault in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_subgroup_that_was_asked_for_must_exist(
    tmp_path: Path, manifest: Path, bundle_folder: Path
) -> None:
    wrong = config(tmp_path / "run", bundle_folder, manifest, subgroups=("densty", "age"))
    with pytest.raises(RunError, match="no column densty"):
        evaluate(wrong)


def test_split_without_the_positive_class_is_refused(
    tmp_path: Path, manifest: Path, bundle_folder: Path
) -> None:
    data = DataConfig(manifest=manifest, positive_class="cancer")
    wrong = EvaluateConfig(run=tmp_path / "run", bundle=bundle_folder, data=data, split="all")
    with pytest.raises(RunError, match="positive class 'cancer' is not among"):
        evaluate(wrong)


def test_what_the_page_draws_is_what_was_measured_here_not_where_thresholds_were_chosen(
    run: Path, bundle: Bundle
) -> None:
    figures = Figures.model_validate_json((run / "figures.json").read_text())
    found = metrics_of(run)
    for unit, roc in figures.roc.items():
        assert roc.auc.value == pytest.approx(found["units"][unit]["auc"]["value"])
    assert figures.note == OTHER_CASES
    for point, shipped in zip(
        figures.operating_points, bundle.manifest.operating_points, strict=True
    ):
        here = found["units"]["breast"]["operating_points"][point.name]
        assert point.threshold == shipped.threshold
        assert point.sensitivity == here["sensitivity"]["value"]
        assert point.specificity == here["specificity"]["value"]
    groups = [(group.column, group.group, group.positives) for group in figures.subgroups]
    assert groups == [
        (column, row["group"], row["positives"])
        for column, by in found["subgroups"].items()
        for row in by["groups"]
    ]
