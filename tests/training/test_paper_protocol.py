"""The paper's protocol on a small made set: splits, pieces that are kept, faults told at once."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.pictures import png
from training.manifest import ManifestError
from training.paper_figures import ARMS, Arm, Files
from training.paper_protocol import PaperConfig, paper_protocol, read_pictures, split, trivial_rule

PER_CLASS = 10
CLASSES = ("benign", "malignant", "normal")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speckle with a dark lesion, small in benign and large in malignant images, and its mask. The
    first two images of a class are one, a little brighter."""
    folder = tmp_path_factory.mktemp("busi")
    for k, (label, radius) in enumerate(zip(CLASSES, (5, 12, 0), strict=True)):
        for part in ("images", "masks"):
            (folder / part / label).mkdir(parents=True)
        for i in range(PER_CLASS):
            rng = np.random.default_rng(100 * k + max(i, 1))
            image = rng.normal(110, 30, (40, 50))
            mask = np.zeros((40, 50), np.uint8)
            if radius:
                cv2.circle(mask, (25, 20), radius, 255, -1)
            image = np.clip(np.where(mask > 0, 40, image) + 8 * (i == 0), 1, 254)
            (folder / "images" / label / f"{label} ({i}).png").write_bytes(
                png(image.astype(np.uint8))
            )
            (folder / "masks" / label / f"{label} ({i})_mask.png").write_bytes(png(mask))
    return folder


def config(source: Path, run: Path) -> PaperConfig:
    return PaperConfig(
        run=run,
        images=source / "images",
        masks=source / "masks",
        seeds=1,
        side=32,
        epochs=1,
        batch=16,
        features=8,
        lstm_units=4,
    )


def files_of(count: int) -> Files:
    """As many images as BUSI has, in groups of two, and their masks."""
    labels = np.random.default_rng(0).choice(3, count, p=(0.56, 0.27, 0.17)).astype(np.int32)
    groups = np.arange(count, dtype=np.int32) // 2
    return Files(np.tile(labels, 2), np.tile(groups, 2), np.repeat([False, True], count), CLASSES)


def test_first_arm_has_the_counts_of_the_paper() -> None:
    train, test = split(ARMS[0], files_of(780), seed=0)
    assert (len(train), len(test)) == (1248, 312)


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.key)
def test_split_is_as_the_arm_says(arm: Arm) -> None:
    files = files_of(780)
    train, test = split(arm, files, seed=1)
    both = np.concatenate([train, test])
    assert len(both) == len(set(both.tolist())) == (1560 if arm.masks else 780)
    assert len(test) == pytest.approx(len(both) / 5, rel=0.05)
    crossing = set(files.groups[train].tolist()) & set(files.groups[test].tolist())
    assert bool(crossing) != arm.grouped
    for k in range(3):
        share = (files.labels[test] == k).mean()
        assert share == pytest.approx((files.labels == k).mean(), abs=0.03)
    assert not np.array_equal(split(arm, files, seed=2)[1], test)


def test_pictures_are_images_then_masks_and_near_duplicates_are_one_group(source: Path) -> None:
    pictures = read_pictures(config(source, source / "run"))
    assert pictures.pixels.shape == (60, 32, 32)
    assert pictures.files.classes == CLASSES
    groups = pictures.files.groups
    np.testing.assert_array_equal(groups[:30], groups[30:])
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 27
    assert set(np.unique(pictures.pixels[50:])) == {0}, "masks of normal images are black"


def test_published_layout_with_masks_beside_the_images_is_read_alike(
    source: Path, tmp_path: Path
) -> None:
    for part in ("images", "masks"):
        for path in (source / part).rglob("*.png"):
            (tmp_path / path.parent.name).mkdir(exist_ok=True)
            (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    apart = read_pictures(config(source, tmp_path / "run"))
    beside = read_pictures(
        PaperConfig(run=tmp_path / "run", images=tmp_path, masks=tmp_path, side=32)
    )
    np.testing.assert_array_equal(apart.pixels, beside.pixels)
    np.testing.assert_array_equal(apart.files.labels, beside.files.labels)


def test_rule_tells_masks_and_nothing_else(source: Path) -> None:
    pictures = read_pictures(config(source, source / "run"))
    everything = np.arange(60)
    said = trivial_rule(pictures, everything, everything)
    right = said == pictures.files.labels
    assert right[30:].all()
    assert right[:30].mean() < 0.9


@pytest.mark.long
def test_every_piece_is_kept_and_a_stopped_run_goes_on(source: Path, tmp_path: Path) -> None:
    run = paper_protocol(config(source, tmp_path / "run"))
    pieces = {path: path.stat().st_mtime_ns for path in (run / "pieces").iterdir()}
    assert len(pieces) == 4
    for name in ("figures.png", "confusion.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["arms"]) == {arm.name for arm in ARMS}
    for arm in metrics["arms"].values():
        assert arm["accuracy"]["low"] <= arm["accuracy"]["value"] <= arm["accuracy"]["high"]
    assert metrics["arms"]["images only, grouped split"]["test_files_with_kin_in_training"] == 0
    page = (run / "report.html").read_text()
    first = metrics["arms"]["masks as images, random split"]["accuracy"]["value"]
    assert f"right in {first:.3f}" in page

    lost = next(iter(pieces))
    lost.unlink()
    paper_protocol(config(source, tmp_path / "run"))
    again = {path: path.stat().st_mtime_ns for path in (run / "pieces").iterdir()}
    assert {path for path in pieces if pieces[path] != again[path]} == {lost}
    assert json.loads((run / "metrics.json").read_text()) == metrics, "a piece is reproducible"


def test_everything_wrong_with_the_files_is_told_at_once(source: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        for label in CLASSES[:2]:
            (tmp_path / part / label).mkdir(parents=True)
            for path in sorted((source / part / label).iterdir())[:3]:
                (tmp_path / part / label / path.name).write_bytes(path.read_bytes())
    (tmp_path / "masks" / "benign" / "benign (0)_mask.png").unlink()
    (tmp_path / "images" / "malignant" / "malignant (1).png").write_bytes(b"torn")
    with pytest.raises(ManifestError) as caught:
        paper_protocol(config(tmp_path, tmp_path / "run"))
    assert "2 finding(s)" in str(caught.value)
    assert "no mask:" in str(caught.value)
    assert "malignant (1).png: unsupported_format" in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ManifestError, match="no such folder"):
        paper_protocol(config(tmp_path / "nowhere", tmp_path / "run"))
