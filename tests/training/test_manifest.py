"""Manifests: everything wrong is said with its line, and patients stay on one side."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.pictures import breast, encoded, png
from training.manifest import (
    COLUMNS,
    LabelledImage,
    ManifestError,
    check_patients_apart,
    classes_of,
    fingerprint,
    read,
    read_checked,
    with_splits,
)
from training.rsna import write_manifest

GOOD = {
    "image": "a.png", "patient_id": "p1", "exam_date": "2024-01-31", "laterality": "L",
    "view": "CC", "label": "malignant",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(png(breast(40, 30, seed=ord(name[0]))))
    return tmp_path


def write(folder: Path, *rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> Path:
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def second(**changes: str) -> dict[str, str]:
    return GOOD | {"image": "b.png", "patient_id": "p2", "label": "no_cancer"} | changes


def third(**changes: str) -> dict[str, str]:
    return second(**{"image": "c.png", "patient_id": "p3", **changes})


def test_manifest_is_read_row_by_row(folder: Path) -> None:
    path = write(folder, GOOD, second(exam_date="", laterality="", view=""))
    assert read(path) == [
        LabelledImage(folder / "a.png", "p1", date(2024, 1, 31), "L", "CC", "malignant"),
        LabelledImage(folder / "b.png", "p2", None, "", "", "no_cancer"),
    ]


def test_image_paths_are_relative_to_the_folder_named(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = write(elsewhere, GOOD, second())
    assert read(path, folder)[0].path == folder / "a.png"
    with pytest.raises(ManifestError, match="no such image"):
        read(path)


def test_spreadsheets_byte_order_mark_and_spaces_are_forgiven(folder: Path) -> None:
    path = write(folder, GOOD | {"label": " malignant "}, second())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path)[0].label == "malignant"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": ""}, "image is empty"),
        ({"patient_id": " "}, "patient_id is empty"),
        ({"label": ""}, "label is empty"),
        ({"laterality": "left"}, "laterality is 'left'"),
        ({"exam_date": "31.01.2024"}, "exam_date is '31.01.2024'"),
        ({"image": "z.png"}, "no such image"),
    ],
)
def test_fault_is_told_with_its_line(folder: Path, changes: dict[str, str], message: str) -> None:
    path = write(folder, GOOD, second(**changes), third())
    with pytest.raises(ManifestError) as caught:
        read(path)
    assert f"line 3: {message}" in str(caught.value)
    assert "1 finding(s)" in str(caught.value)


SPLIT = (*COLUMNS, "split")


def test_all_faults_are_told_at_once_with_their_lines(folder: Path) -> None:
    """Of rows, of the whole and of the images."""
    (folder / "broken.png").write_bytes(png(breast(40, 30))[:60])
    (folder / "note.png").write_text("not an image")
    path = write(
        folder,
        GOOD | {"split": "train"},
        second(laterality="x", exam_date="soon", split="val"),
        third(label="maligant", split="val"),
        third(image="./b.png", patient_id="p1", split="val"),
        third(image="gone.png", split="val"),
        third(image="broken.png", split="val"),
        third(image="note.png", patient_id="", split="val"),
        columns=SPLIT,
    )
    with pytest.raises(ManifestError) as caught:
        read_checked(path, classes=("malignant", "no_cancer", "benign"), positive_class="malignant")
    head, *findings = str(caught.value).splitlines()
    expected = [
        "line 3: laterality is 'x'",
        "line 3: exam_date is 'soon'",
        f"line 6: no such image: {folder / 'gone.png'}",
        "line 8: patient_id is empty",
        "line 4: label is 'maligant', not one of malignant, no_cancer, benign",
        f"line 5: {folder / 'b.png'} is named on line 3 already",
        "no image of class 'benign'",
        "patient p1 is in more than one split: train lines 2; val lines 5",
        "split train has images of ['malignant'] only",
        "split val has images of ['maligant', 'no_cancer'] only",
        f"line 7: {folder / 'broken.png'}: broken_image",
        f"line 8: {folder / 'note.png'}: unsupported_format",
    ]
    assert head.endswith(f"{len(expected)} finding(s)")
    for finding, start in zip(findings, expected, strict=True):
        assert finding.startswith(start)


def test_blank_image_is_no_fault(folder: Path) -> None:
    """It can be read; that nothing is on it is found, and told, when it is preprocessed."""
    (folder / "blank.png").write_bytes(png(np.zeros((40, 30), np.uint8)))
    path = write(folder, GOOD, second(), third(label="malignant"), third(image="blank.png"))
    assert len(read_checked(path, positive_class="malignant")) == 4


def test_sides_that_a_verb_does_not_need_may_be_missing(folder: Path) -> None:
    path = write(folder, GOOD | {"split": "val"}, second(split="val"), columns=SPLIT)
    assert len(read_checked(path, positive_class="malignant", sides=("val",))) == 2
    with pytest.raises(ManifestError, match="split train has images of no class only"):
        read_checked(path, positive_class="malignant")


def test_too_few_patients_to_split_are_told_before_training(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"1 patient\(s\) with images of malignant: too few"):
        read_checked(write(folder, GOOD, second(), third()), positive_class="malignant")


def test_row_with_more_cells_than_the_header_is_told(folder: Path) -> None:
    path = write(folder, GOOD, second(), third())
    path.write_text(path.read_text().replace(",no_cancer", ",no_cancer,", 1))
    with pytest.raises(ManifestError, match="line 3: more cells than the header names"):
        read(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"image\x00,label"])
def test_file_that_is_no_csv_is_told(folder: Path, content: bytes) -> None:
    path = folder / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"not a CSV|missing column"):
        read(path)


def test_split_that_is_none_is_told_with_its_line(folder: Path) -> None:
    path = write(folder, GOOD | {"split": "test"}, columns=(*COLUMNS, "split"))
    with pytest.raises(ManifestError, match="line 2: split is 'test'"):
        read(path)


def test_missing_columns_are_named(folder: Path) -> None:
    path = write(folder, GOOD, columns=("image", "label", "view"))
    with pytest.raises(ManifestError, match=r"missing column.*patient_id, exam_date, laterality"):
        read(path)


def test_one_class_is_not_enough(folder: Path) -> None:
    with pytest.raises(ManifestError, match="at least two classes"):
        read(write(folder, GOOD, second(label="malignant")))


# folders


def test_folders_are_classes_and_near_duplicates_are_one_patient(tmp_path: Path) -> None:
    """Copies, and the same picture smaller or recompressed, also in another class."""
    pictures = [breast(300, 200, seed=seed) for seed in range(6)]
    for label, seeds in (("benign", (0, 1, 2)), ("malignant", (3, 4, 5))):
        (tmp_path / label).mkdir()
        for i in seeds:
            (tmp_path / label / f"{i}.png").write_bytes(png(pictures[i]))
    shutil.copy(tmp_path / "malignant" / "3.png", tmp_path / "malignant" / "copy.png")
    half = cv2.resize(pictures[4], (100, 150), interpolation=cv2.INTER_AREA)
    (tmp_path / "benign" / "smaller.jpg").write_bytes(encoded(".jpg", half))
    (tmp_path / "malignant" / "notes.txt").write_text("not an image")
    images = read(tmp_path)
    assert Counter(image.label for image in images) == {"benign": 4, "malignant": 4}
    patients = {image.path.name: image.patient_id for image in images}
    assert len(set(patients.values())) == 6
    assert patients["copy.png"] == patients["3.png"]
    assert patients["smaller.jpg"] == patients["4.png"]
    for seed in range(20):
        check_patients_apart(with_splits(images, 0.4, seed))


def test_unreadable_image_of_a_folder_is_told_by_its_class(tmp_path: Path) -> None:
    for label in ("benign", "malignant"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.png").write_bytes(png(breast(300, 200, seed=len(label))))
    (tmp_path / "benign" / "b.png").write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"\nbenign: .*b.png: unsupported_format"):
        read_checked(tmp_path)


# splits


def images_of(*patients: tuple[str, int, str], split: str = "") -> list[LabelledImage]:
    """``(patient, number of images, label)``."""
    return [
        LabelledImage(Path(f"{patient}-{i}.png"), patient, None, "L", "CC", label, split)
        for patient, count, label in patients
        for i in range(count)
    ]


MANY = images_of(
    *((f"m{i}", 1 + i % 4, "malignant") for i in range(20)),
    *((f"n{i}", 1 + i % 4, "no_cancer") for i in range(80)),
)


@pytest.mark.parametrize("seed", range(5))
def test_split_is_by_patient_and_stratified_by_label(seed: int) -> None:
    split = with_splits(MANY, 0.25, seed)
    assert [image.path for image in split] == [image.path for image in MANY]
    check_patients_apart(split)
    val = {image.patient_id for image in split if image.split == "val"}
    assert sum(patient.startswith("m") for patient in val) == 5
    assert sum(patient.startswith("n") for patient in val) == 20


def test_split_depends_on_the_seed_alone() -> None:
    def chosen(images: list[LabelledImage], seed: int) -> set[str]:
        split = with_splits(images, 0.25, seed)
        return {image.patient_id for image in split if image.split == "val"}

    assert chosen(MANY, 1) == chosen(list(reversed(MANY)), 1)
    assert chosen(MANY, 1) != chosen(MANY, 2)


def test_both_sides_of_a_small_set_have_every_class() -> None:
    few = images_of(*((f"{label}{i}", 2, label) for label in ("a", "b") for i in range(2)))
    split = with_splits(few, 0.2, 0)
    for side in ("train", "val"):
        assert {image.label for image in split if image.split == side} == {"a", "b"}


def test_only_patient_of_its_kind_is_for_training() -> None:
    """A stratum of one cannot be on both sides; to learn from it is worth more."""
    few = MANY + images_of(("both", 1, "malignant"), ("both", 1, "no_cancer"))
    split = with_splits(few, 0.25, 0)
    assert {image.split for image in split if image.patient_id == "both"} == {"train"}


def test_split_of_the_manifest_is_kept() -> None:
    images = images_of(("a", 2, "x"), split="train") + images_of(("b", 2, "y"), split="val")
    assert with_splits(images, 0.5, 0) == images


def test_patient_on_both_sides_is_an_error_that_names_the_patient() -> None:
    images = images_of(("a", 1, "x"), ("b", 1, "y"), split="train")
    images += images_of(("a", 1, "x"), ("c", 1, "y"), split="val")
    with pytest.raises(ManifestError, match=r"^patient a is in more than one split: train"):
        with_splits(images, 0.5, 0)


def test_split_named_for_some_rows_only_is_an_error() -> None:
    images = images_of(("a", 1, "x"), split="train") + images_of(("b", 1, "y"))
    with pytest.raises(ManifestError, match="1 of 2 rows name no split"):
        with_splits(images, 0.5, 0)


def test_positive_class_comes_last() -> None:
    images = images_of(("1", 1, "malignant"), ("2", 1, "normal"), ("3", 1, "benign"))
    assert classes_of(images, "malignant") == ("benign", "normal", "malignant")
    assert classes_of(images, "benign") == ("malignant", "normal", "benign")
    with pytest.raises(ManifestError, match="'cancer' is not among"):
        classes_of(images, "cancer")


def test_fingerprint_tells_rows_and_pixels_apart(folder: Path) -> None:
    images = read(write(folder, GOOD, second()))
    prints = {fingerprint(images)}
    assert fingerprint(read(write(folder, GOOD, second()))) in prints
    prints.add(fingerprint(read(write(folder, GOOD, second(label="benign")))))
    prints.add(fingerprint(read(write(folder, GOOD, second(laterality="R")))))
    prints.add(fingerprint(with_splits(images, 0.5, 0)))
    (folder / "a.png").write_bytes(png(breast(40, 30, seed=99)))
    prints.add(fingerprint(images))
    assert len(prints) == 5


# the RSNA subset


def test_rsna_manifest_holds_nothing_that_is_known_only_after_diagnosis(tmp_path: Path) -> None:
    columns = (
        "file_name", "patient_id", "laterality", "view", "cancer", "split", "age", "density",
        "implant", "machine_id", "site_id", "BIRADS", "biopsy", "invasive",
        "difficult_negative_case",
    )  # fmt: skip
    rows = [
        (
            "1.jpg",
            "9",
            "L",
            "CC",
            "1",
            "train",
            "61.0",
            "B",
            "0",
            "49",
            "1",
            "0",
            "1",
            "1",
            "False",
        ),
        ("2.jpg", "8", "R", "MLO", "0", "val", "", "", "1", "21", "2", "2", "0", "0", "True"),
    ]
    (tmp_path / "images").mkdir()
    with (tmp_path / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "images" / name).write_bytes(b"x")
    target = tmp_path / "out" / "manifest.csv"
    assert write_manifest(tmp_path, target) == 2
    subgroups = {"machine", "density", "age", "implant"}
    with target.open(newline="") as file:
        assert set(csv.DictReader(file).fieldnames or ()) == {*COLUMNS, "split", *subgroups}
    first, other = read(target, tmp_path)
    assert (first.label, first.split, first.patient_id) == ("malignant", "train", "9")
    assert (other.label, other.split, other.view) == ("no_cancer", "val", "MLO")
    assert first.attributes == {"machine": "49", "density": "B", "age": "61.0", "implant": "0"}
