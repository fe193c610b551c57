"""Inspect: counts, faults, duplicates and shortcuts of a set, in one report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.pictures import breast, encoded, png, sixteen_bit
from training.config import DataConfig
from training.inspection import InspectConfig, inspect
from training.manifest import COLUMNS, ManifestError

PATIENTS = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of each of 12 patients, half of them malignant; machine 7 made the malignant ones,
    in 16 bit. Patient p11 is a smaller copy of p0; one more image is blank."""
    folder = tmp_path_factory.mktemp("set")
    rows = []
    for i in range(PATIENTS):
        malignant = i < PATIENTS // 2
        for view in ("CC", "MLO"):
            pixels = breast(300, 200, seed=100 * (i % 11) + len(view))
            if i == 11:
                pixels = cv2.resize(pixels, (150, 225), interpolation=cv2.INTER_AREA)
            name = f"{i}{view}.png"
            (folder / name).write_bytes(png(sixteen_bit(pixels) if malignant else pixels))
            label = "malignant" if malignant else "no_cancer"
            split = "val" if i % 3 == 2 else "train"
            rows.append([name, f"p{i}", "", "L", view, label, split, 7 if malignant else 3])
    (folder / "blank.png").write_bytes(png(np.zeros((50, 40), np.uint8)))
    rows.append(["blank.png", "p5", "", "L", "CC", "malignant", "val", 7])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*COLUMNS, "split", "machine"], *rows])
    return folder


def config(manifest: Path, run: Path) -> InspectConfig:
    return InspectConfig(
        run=run, data=DataConfig(manifest=manifest, positive_class="malignant"), sample=3
    )


def test_report_of_a_sound_set_has_everything(source: Path, tmp_path: Path) -> None:
    run = inspect(config(source / "manifest.csv", tmp_path / "run"))
    found = json.loads((run / "metrics.json").read_text())
    assert found["findings"] == []
    assert found["counts"]["train"]["malignant"] == {"images": 8, "patients": 4}
    assert found["counts"]["val"]["no_cancer"] == {"images": 4, "patients": 2}
    kinds = found["pictures"]
    assert kinds["bits"] == {
        "8": {"malignant": 1, "no_cancer": 12}, "16": {"malignant": 12, "no_cancer": 0},
    }  # fmt: skip
    assert kinds["blank, left out"]["yes"] == {"malignant": 1, "no_cancer": 0}
    assert kinds["rows x columns"]["225 x 150"] == {"malignant": 0, "no_cancer": 2}
    assert found["duplicates"]["near_duplicate_pairs"] == 2
    assert found["duplicates"]["pairs_across_classes"] == 2
    assert found["duplicates"]["pairs_across_splits"] == 2
    assert found["duplicates"]["identical_pairs"] == 0
    assert found["shortcuts"]["column machine"]["warns"]
    assert found["shortcuts"]["size of file and picture"]["warns"]
    assert not found["shortcuts"]["column view"]["warns"]
    with (run / "pairs.csv").open(newline="") as file:
        pairs = list(csv.DictReader(file))
    assert [Path(pair["second"]).name for pair in pairs] == ["11CC.png", "11MLO.png"]
    assert {pair["patients"] for pair in pairs} == {"different"}
    for name in ("counts.png", "sample.png", "shortcuts.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    page = (run / "report.html").read_text()
    assert "Shortcut warnings: " in page
    assert "column machine" in page


def test_faults_are_in_the_report_and_end_the_command(source: Path, tmp_path: Path) -> None:
    text = (source / "manifest.csv").read_text()
    text = text.replace("1CC.png,p1,", "1CC.png,p2,")  # p2 is of the other side
    text += "gone.png,p30,,L,CC,malignant,train,7\nnote.png,p31,,L,CC,malignant,train,7\n"
    (source / "faulty.csv").write_text(text)
    (source / "note.png").write_text("not an image")
    run = tmp_path / "run"
    with pytest.raises(ManifestError) as caught:
        inspect(config(source / "faulty.csv", run))
    findings = json.loads((run / "metrics.json").read_text())["findings"]
    assert len(findings) == 3
    for finding, start in zip(
        findings,
        ("line 27: no such image", "patient p2 is in more than one split", "line 28: "),
        strict=True,
    ):
        assert finding.startswith(start)
        assert finding in str(caught.value)
    assert "patient p2 is in more than one split" in (run / "report.html").read_text()
    counts = json.loads((run / "metrics.json").read_text())["counts"]
    assert counts["train"]["malignant"]["images"] == 10


def test_folder_per_class_is_inspected_alike(tmp_path: Path) -> None:
    for k, label in enumerate(("benign", "malignant", "normal")):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(3):
            pixels = breast(300, 200, seed=10 * k + i)
            (tmp_path / "set" / label / f"{i}.jpg").write_bytes(encoded(".jpg", pixels))
    copy = (tmp_path / "set" / "benign" / "0.jpg").read_bytes()
    (tmp_path / "set" / "malignant" / "copy.jpg").write_bytes(copy)
    run = inspect(config(tmp_path / "set", tmp_path / "run"))
    found = json.loads((run / "metrics.json").read_text())
    assert found["counts"] == {
        "not split": {
            "benign": {"images": 3, "patients": 3},
            "malignant": {"images": 4, "patients": 4},
            "normal": {"images": 3, "patients": 3},
        }
    }
    assert found["duplicates"]["identical_pairs"] == 1
    assert found["duplicates"]["pairs_across_classes"] == 1
    assert found["duplicates"]["pairs_of_different_patients"] == 0
    assert found["shortcuts"]["16 x 16 thumbnail"] is None, "four patients are too few to tell"


def test_nothing_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "set" / "benign").mkdir(parents=True)
    with pytest.raises(ManifestError, match="at least two classes"):
        inspect(config(tmp_path / "set", tmp_path / "run"))
    assert not (tmp_path / "run").exists()
