"""Checks of the heatmaps: measurements measure what they say, the verb keeps its promises."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from app.bundle import Bundle
from app.imaging.preprocess import InputGeometry, crop_breast
from app.inference.sessions import Features, Sessions
from export.bundle import export
from tests.export.test_export import write_run
from tests.pictures import breast, png
from tests.training.hybrids import small_hybrid
from training.config import SeriesConfig
from training.explain.figures import by_patient
from training.explain.heatmaps import breast_of, cells_of_breast, enlarged, peak, read_alone
from training.explain.perturbation import blurred, exchanged, most_suspicious, pixel_order
from training.explain.pointing import GROWING, SINGLE, masses, outlined_images, point_at_outline
from training.explain.randomised import randomise, spearman, ssim, stages_of
from training.explain.report import judge
from training.explain_check import ExplainConfig, explain_check
from training.manifest import COLUMNS, LabelledImage
from training.run_folder import RunError
from training.simulate import read_intervals

SIZE = InputGeometry(256, 160)
GRID = (8, 5)


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The ``paper`` encoder at 64 x 64, untrained, exported as any model is."""
    run = write_run(tmp_path_factory.mktemp("runs") / "run", small_hybrid())
    return export(run, tmp_path_factory.mktemp("store") / "small" / "1.0.0")


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return crop_breast(breast(), SIZE)[0]


# randomised weights


def features_of_two_images(sessions: Sessions, head: bytes) -> Features:
    """Made feature maps that fit a head."""
    shapes = {i.name: i for i in onnx.load_from_string(head).graph.input}
    rows, columns, channels = (d.dim_value for d in shapes["maps"].type.tensor_type.shape.dim[1:])
    maps = np.random.default_rng(0).gamma(0.5, 1, (2, rows, columns, channels)).astype(np.float32)
    return Features(maps, maps.mean(axis=(1, 2)))


def assert_maps_are_gradients(encoder: bytes, head: bytes) -> None:
    """The map of each cell is the slope of the logit along that cell's features (Grad-CAM)."""
    sessions = Sessions(encoder, head, device="cpu")
    features = features_of_two_images(sessions, head)
    slots, days = np.array([[0], [1]], np.int32), np.array([0, 365], np.float32)
    heatmaps = sessions.read(features, slots, days).heatmaps[0, 0]  # of the first exam
    cells = features.maps[0].reshape(-1, features.maps.shape[3])
    step = 2e-3
    slopes = []
    for cell in cells[:6]:
        ends = []
        for sign in (1, -1):
            moved = features.pooled.copy()
            moved[0] += sign * step * cell
            ends.append(sessions.read(Features(features.maps, moved), slots, days).logits)
        slopes.append((ends[0] - ends[1]) / (2 * step) / len(cells))
    expected = np.maximum(0, np.array(slopes)).T  # [classes, cells]
    found = heatmaps.reshape(len(heatmaps), -1)[:, :6]
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.02 * np.abs(slopes).max())


@pytest.mark.parametrize("which", ["bundle", "small_bundle"])
def test_randomised_head_still_answers_the_gradient_of_its_own_logits(
    which: str, request: pytest.FixtureRequest
) -> None:
    """Or the map would be that of a mixture of two networks."""
    tested: Bundle = request.getfixturevalue(which)
    assert_maps_are_gradients(tested.encoder, tested.head)
    head = tested.head
    for k, stage in enumerate(s for s in stages_of(tested, 1) if s.graph == "head"):
        rng = np.random.default_rng(k)
        assert_maps_are_gradients(tested.encoder, randomise(tested.head, stage.tensors, rng))
        head = randomise(head, stage.tensors, rng)
    assert_maps_are_gradients(tested.encoder, head)


@pytest.mark.parametrize("which", ["bundle", "small_bundle"])
def test_stages_go_from_the_classifier_down_to_the_first_convolution(
    which: str, request: pytest.FixtureRequest
) -> None:
    tested: Bundle = request.getfixturevalue(which)
    stages = stages_of(tested, 4)
    assert [s.name for s in stages[:3]] == ["classifier", "LSTM", "dense"]
    assert [s.graph for s in stages] == ["head"] * 3 + ["encoder"] * 4
    convolutions = [
        node for node in onnx.load_from_string(tested.encoder).graph.node if node.op_type == "Conv"
    ]
    assert convolutions[0].input[1] in stages[-1].tensors
    assert convolutions[-1].input[1] in stages[3].tensors
    held = [name for stage in stages[3:] for name in stage.tensors]
    assert {node.input[1] for node in convolutions} <= set(held)
    assert len(held) == len(set(held))


def test_randomising_moves_the_values_of_the_named_tensors_alone(small_bundle: Bundle) -> None:
    def tensors(graph: bytes) -> dict[str, NDArray[np.float32]]:
        held = onnx.load_from_string(graph).graph.initializer
        return {t.name: numpy_helper.to_array(t) for t in held}

    last = stages_of(small_bundle, 3)[3]
    before = tensors(small_bundle.encoder)
    after = tensors(randomise(small_bundle.encoder, last.tensors, np.random.default_rng(0)))
    for name, values in before.items():
        if name in last.tensors:
            np.testing.assert_array_equal(np.sort(values, None), np.sort(after[name], None))
            assert not np.array_equal(values, after[name])
        else:
            np.testing.assert_array_equal(values, after[name])


def test_similarity_is_one_for_equal_maps_and_falls_for_others() -> None:
    one = np.random.default_rng(0).gamma(1, 1, (16, 10)).astype(np.float32)
    other = np.random.default_rng(1).gamma(1, 1, (16, 10)).astype(np.float32)
    assert spearman(one, one**3) == pytest.approx(1)
    assert spearman(one, 5 - one) == pytest.approx(-1)
    assert ssim(one, 7 * one) == pytest.approx(1)
    assert abs(spearman(one, other)) < 0.3
    assert ssim(one, other) < 0.3
    level = np.zeros_like(one)
    assert np.isnan(spearman(one, level))
    assert np.isnan(ssim(one, level))


# deletion and insertion


def test_pixels_are_exchanged_step_by_step_in_the_order_of_the_map(
    image: NDArray[np.uint8],
) -> None:
    grid_map = np.zeros(GRID, np.float32)
    grid_map[3, 1] = 1
    order = pixel_order(image, grid_map, np.random.default_rng(0))
    inside = breast_of(image)
    assert sorted(order) == np.flatnonzero(inside).tolist()
    along = exchanged(image, np.full_like(image, 7), order, steps=10)
    np.testing.assert_array_equal(along[0], image)
    assert (along[-1][inside] == 7).all()
    np.testing.assert_array_equal(along[:, ~inside], np.tile(image[~inside], (11, 1)))
    taken = [(step != image).sum() for step in along]
    assert all(late > early for early, late in pairwise(taken))
    rows, columns = np.nonzero(along[1] != image)
    near = np.hypot(rows - 3.5 * 32, columns - 1.5 * 32) < 48
    assert (enlarged(grid_map, image.shape)[rows, columns] > 0).mean() > 0.3
    assert near.mean() > 0.3


def test_level_map_is_a_random_order(image: NDArray[np.uint8]) -> None:
    level = np.ones(GRID, np.float32)
    one, other = (pixel_order(image, level, np.random.default_rng(s)) for s in (0, 1))
    half = len(one) // 2
    shared = len(np.intersect1d(one[:half], other[:half])) / half
    assert 0.3 < shared < 0.7


def test_blurred_breast_keeps_its_outline_and_loses_what_is_in_it() -> None:
    picture, _, _ = crop_breast(breast(spots=[(300, 100)]), SIZE)
    smooth = blurred(picture, GRID[0])
    inside = breast_of(picture)
    np.testing.assert_array_equal(breast_of(smooth), inside)
    np.testing.assert_array_equal(smooth[~inside], picture[~inside])
    assert smooth[inside].std() < 0.6 * picture[inside].std()


def test_suspicious_images_are_of_the_upper_quarter_one_a_patient_and_have_a_map() -> None:
    probability = np.arange(40) / 40
    maps = np.ones((40, 2, 2), np.float32)
    maps[35] = 0
    patients = [f"p{i // 2}" for i in range(40)]
    chosen = most_suspicious(probability, maps, patients, 100, np.random.default_rng(0))
    assert {i // 2 for i in chosen} == {15, 16, 17, 18, 19}
    assert len(chosen) == 5
    assert 35 not in chosen


# pointing


def test_target_lies_where_the_mass_was_put() -> None:
    """Where the picture with the mass and its twin differ most, after both were cropped again."""
    intervals = read_intervals(SeriesConfig().study_dates)
    row = LabelledImage(Path("a.png"), "p", None, "L", "CC", "no_cancer")
    found = []
    for seed in range(4):
        picture, _, _ = crop_breast(breast(seed=seed), InputGeometry(512, 320))
        found += masses(picture, row, (16, 10), max_exams=3, intervals=intervals, seed=[seed])
    assert [m.scenario for m in found] == [SINGLE, GROWING] * 4
    for mass in found:
        if mass.scenario == SINGLE:
            difference = mass.lesioned.exams[-1].astype(float) - mass.twin.exams[-1]
            brighter = cv2.GaussianBlur(difference, (0, 0), 5)
            row, column = np.unravel_index(int(np.argmax(brighter)), brighter.shape)
            assert mass.lesioned.target[row, column]
            rows, columns = np.nonzero(mass.lesioned.target)
            assert np.hypot(rows.mean() - row, columns.mean() - column) < 12
        else:
            np.testing.assert_array_equal(mass.lesioned.exams[-1], mass.twin.exams[-1])
            assert len(mass.lesioned.exams) == len(mass.lesioned.gaps) >= 2
            assert mass.lesioned.gaps[0] == 0


def write_busi(folder: Path) -> Path:
    """Two images with a bright lesion and its mask, one of them mirrored; one without a lesion."""
    for name, column in (("malignant/a (1)", 20), ("benign/b (2)", 180)):
        picture = breast(300, 200, spots=[(120, column)], right=column > 100)
        y, x = np.mgrid[:300, :200]
        mask = np.hypot(y - 120, x - column) < 14
        for kind, suffix, pixels in (("images", "", picture), ("masks", "_mask", mask * 255)):
            path = folder / kind / f"{name}{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(pixels.astype(np.uint8)))
    (folder / "images" / "normal").mkdir()
    (folder / "images" / "normal" / "c (3).png").write_bytes(png(breast(300, 200)))
    return folder


def test_outline_follows_its_image_into_the_crop(small_bundle: Bundle, tmp_path: Path) -> None:
    busi = write_busi(tmp_path)
    outlined = outlined_images(busi)
    sessions = Sessions(small_bundle.encoder, small_bundle.head, device="cpu")
    cases = [
        case
        for item in outlined
        for case in point_at_outline(sessions, small_bundle.manifest, *item)
    ]
    assert {case.image for case in cases} == {"malignant/a (1).png", "benign/b (2).png"}
    for case in cases:
        assert case.brightest, case.image
        assert 0 < case.chance < 0.05


def test_peak_is_the_centre_of_the_highest_cell_and_none_without_a_map() -> None:
    grid_map = np.zeros((16, 10), np.float32)
    assert peak(grid_map, (512, 320)) is None
    grid_map[2, 9] = 1
    assert peak(grid_map, (512, 320)) == (79.5, 303.5)


def test_cells_of_the_breast_are_where_the_breast_is(image: NDArray[np.uint8]) -> None:
    cells = cells_of_breast(image, GRID)
    assert cells[4, 0]
    assert not cells[0, -1]


# figures and verdicts


def test_interval_is_wider_when_images_share_patients() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=20), 5)
    alone = by_patient(values, [str(i) for i in range(100)])
    shared = by_patient(values, [str(i // 5) for i in range(100)])
    assert alone.value == shared.value == pytest.approx(values.mean())
    assert shared.high - shared.low > 1.5 * (alone.high - alone.low)


def estimate(value: float, half_width: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - half_width, "high": value + half_width}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({}, set()),
        ({"rank": 0.27}, {"Randomised weights"}),
        ({"defined": 0.1}, {"Randomised weights"}),
        ({"deletion": -0.03}, {"Deletion"}),
        ({"insertion": -0.2}, {"Insertion"}),
        ({"twin": 0.01}, {"Pointing at a single mass"}),
        ({"chance": 0.01}, {"Pointing at a single mass", "Pointing at a growing mass"}),
    ],
)
def test_check_fails_when_its_interval_reaches_the_criterion(
    change: dict[str, float], failing: set[str]
) -> None:
    v = {
        "rank": 0.1, "defined": 0.9, "deletion": -0.2, "insertion": 0.2, "chance": 0.3, "twin": 0.2,
    } | change  # fmt: skip
    minus = {"chance": estimate(v["chance"]), "twin": estimate(v["twin"])}
    verdicts = judge(
        {"cascading": [{"spearman_breast": estimate(v["rank"]), "defined": v["defined"]}]},
        {
            curve: {"heatmap_minus": {"random": estimate(v[curve])}}
            for curve in ("deletion", "insertion")
        },
        {SINGLE: {"heatmap_minus": minus}, GROWING: {"heatmap_minus": minus}},
    )
    assert len(verdicts) == 5
    assert {verdict.check for verdict in verdicts if not verdict.passed} == failing


def test_passed_check_says_what_was_not_shown() -> None:
    level, better = estimate(0.01), {"deletion": -0.2, "insertion": 0.2}
    verdicts = judge(
        {"cascading": [{"spearman_breast": estimate(0.1), "defined": 1.0}]},
        {
            curve: {"heatmap_minus": {"random": estimate(difference), "centre": level}}
            for curve, difference in better.items()
        },
        {GROWING: {"heatmap_minus": {"chance": estimate(0.3), "twin": level}}},
    )
    _, deletion, insertion, growing = verdicts
    assert all(verdict.passed for verdict in verdicts)
    for verdict in (deletion, insertion):
        assert "not shown to do better than centre" in verdict.meaning
    assert "grew was not shown to play a part" in growing.meaning


# the verb


@pytest.fixture(scope="module")
def config(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> ExplainConfig:
    folder = tmp_path_factory.mktemp("explain")
    rows = []
    for patient in range(24):
        name = f"{patient}.png"
        spots = [(150, 60)] if patient % 2 else []
        (folder / name).write_bytes(png(breast(300, 200, seed=patient, spots=spots)))
        label = "malignant" if patient % 2 else "no_cancer"
        rows.append((name, f"p{patient}", "", "L", "CC", label, "val" if patient > 1 else "train"))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([(*COLUMNS, "split"), *rows])
    return ExplainConfig.model_validate(
        {
            "run": folder / "run",
            "bundle": small_bundle.folder,
            "cache": folder / "cache",
            "data": {"manifest": folder / "manifest.csv", "positive_class": "malignant"},
            "images": 6, "randomisations": 2, "encoder_stages": 2, "perturbed": 4, "steps": 4,
            "random_orders": 1, "masses": 5, "busi": write_busi(folder / "busi"),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(config: ExplainConfig) -> Path:
    return explain_check(config)


def test_run_folder_holds_figures_plots_and_a_page(run: Path) -> None:
    expected = {
        "config.json", "bundle.json", "answers.npz", "similarities.jsonl", "curves.jsonl",
        "cases.jsonl", "metrics.json", "similarity.png", "curves.png", "hits.png", "examples.png",
        "report.html",
    }  # fmt: skip
    assert {path.name for path in run.iterdir()} == expected
    metrics = json.loads((run / "metrics.json").read_text())
    assert len(metrics["verdicts"]) == 5
    assert len(metrics["randomised_weights"]["cascading"]) == 5
    assert metrics["pointing_game"][SINGLE]["lesions"] == 5
    assert metrics["pointing_game"]["ultrasound"]["lesions"] == 2
    page = (run / "report.html").read_text()
    assert "small 1.0.0" in page
    assert "Stress test" in page
    for verdict in metrics["verdicts"]:
        assert verdict["check"] in page


def test_stopped_run_goes_on_with_the_piece_that_it_was_stopped_in(
    config: ExplainConfig, run: Path
) -> None:
    whole = (run / "curves.jsonl").read_text()
    first, second, *_ = whole.splitlines(keepends=True)
    marked = first.replace('"draw": 0', '"draw": 7', 1)  # can only be kept, not made
    (run / "curves.jsonl").write_text(marked + second[: len(second) // 2])
    explain_check(config)
    assert (run / "curves.jsonl").read_text() == marked + whole[len(first) :]
    (run / "curves.jsonl").write_text(whole)


def test_answers_are_those_of_the_served_graphs(run: Path, small_bundle: Bundle) -> None:
    sessions = Sessions(small_bundle.encoder, small_bundle.head, device="cpu")
    picture, _, _ = crop_breast(breast(300, 200, seed=2), InputGeometry(64, 64))
    features = sessions.encode((picture / np.float32(127.5) - 1)[None, ..., None])
    answers = read_alone(sessions, features, small_bundle.manifest)
    with np.load(run / "answers.npz") as held:  # patient 2 is the first of the split
        assert held["probability"][0] == pytest.approx(answers.probability[0], abs=1e-5)
        np.testing.assert_allclose(held["heatmaps"][0], answers.heatmaps[0], atol=1e-6)


def test_measurements_of_another_bundle_are_not_mixed_in(
    config: ExplainConfig, run: Path, tmp_path: Path
) -> None:
    facts = run / "bundle.json"
    held = facts.read_text()
    facts.write_text(json.dumps(json.loads(held) | {"sha256": "0"}))
    with pytest.raises(RunError, match="another bundle"):
        explain_check(config)
    facts.write_text(held)


def test_masses_are_put_into_images_without_cancer(run: Path) -> None:
    text = (run / "cases.jsonl").read_text()
    names = {case["image"] for line in text.splitlines() for case in json.loads(line)["records"]}
    patients = {int(Path(name).stem) for name in names if name.endswith(".png") and "(" not in name}
    assert patients
    assert all(patient % 2 == 0 for patient in patients)


def test_every_fault_is_named_before_anything_is_written(
    config: ExplainConfig, tmp_path: Path
) -> None:
    data = config.data.model_copy(update={"positive_class": "benign"})
    faulty = config.model_copy(
        update={
            "run": tmp_path / "run", "data": data, "study_dates": tmp_path / "no.csv",
            "busi": tmp_path,
        }
    )  # fmt: skip
    with pytest.raises(RunError) as raised:
        explain_check(faulty)
    message = str(raised.value)
    for part in ("'benign' is not among", "positive class of the bundle", "no.csv", "mask"):
        assert part in message
    missing = faulty.model_copy(update={"bundle": tmp_path / "none"})
    with pytest.raises(RunError, match=r"manifest\.json is missing"):
        explain_check(missing)
    assert not (tmp_path / "run").exists()
