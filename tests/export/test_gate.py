"""The gate at export: fitted on training patients, measured on the others, and told everywhere."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.bundle import GATE, MODEL_CARD, Bundle, load_bundle
from app.imaging.decode import decode
from app.imaging.preprocess import InputGeometry, crop_breast
from app.inference.familiarity import familiarity_of
from export.__main__ import main
from export.altered import altered
from export.bundle import export
from export.reduced import reduce_bundle
from tests.export.test_export import everything_under, pictures, write_run
from tests.pictures import breast, png, real_dicom
from tests.training.hybrids import small_hybrid

PATIENTS, VALIDATION = 14, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of made breasts, two per patient, and two kinds of other images."""
    folder = tmp_path_factory.mktemp("data")
    with (folder / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "patient_id", "exam_date", "laterality", "view", "label", "split"])
        for i in range(2 * PATIENTS):
            patient, side = i // 2, "LR"[i % 2]
            (folder / f"{i}.png").write_bytes(png(breast(300, 200, seed=i, right=side == "R")))
            split = "val" if patient < VALIDATION else "train"
            label = ("no_cancer", "malignant")[patient % 2]
            rows.writerow([f"{i}.png", f"p{patient}", "", side, "CC", label, split])
    for kind in ("disc", "breast"):
        (folder / "others" / kind).mkdir(parents=True)
    disc = cv2.circle(np.zeros((300, 300), np.uint8), (150, 150), 90, 180, -1)
    (folder / "others" / "disc" / "a.png").write_bytes(png(disc))
    (folder / "others" / "disc" / "b.png").write_bytes(b"no image at all")
    (folder / "others" / "breast" / "a.png").write_bytes(png(breast(300, 200, seed=4)))
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    run = write_run(tmp_path_factory.mktemp("runs") / "run", small_hybrid())
    return export(run, tmp_path_factory.mktemp("store") / "tiny" / "1.0.0")


@pytest.fixture(scope="module")
def gated(bare: Bundle, folder: Path) -> Bundle:
    target = bare.folder.with_name("1.0.1")
    status = main([
        "--bundle", str(bare.folder), "--gate", str(folder / "manifest.csv"),
        "--others", str(folder / "others"), "--to", str(target),
    ])  # fmt: skip
    assert status == 0
    return load_bundle(target)


def test_new_version_has_the_graphs_of_the_old_one_and_a_gate(bare: Bundle, gated: Bundle) -> None:
    assert bare.manifest.gate is None
    assert (gated.encoder, gated.head) == (bare.encoder, bare.head)
    assert gated.manifest.version == "1.0.1"
    assert set(gated.manifest.files) == {*bare.manifest.files, GATE}
    assert familiarity_of(gated, "refuse") is not None


def test_manifest_says_what_was_measured_and_on_what(gated: Bundle) -> None:
    spec = gated.manifest.gate
    assert spec is not None
    assert spec.fitted_on.startswith("20 training images of 10 patients")
    assert spec.measured_on == "8 validation images of 4 patients"
    assert spec.false_refusals.images == 8
    assert spec.false_refusals.interval is not None
    low, high = spec.false_refusals.interval
    assert low <= spec.false_refusals.value <= high
    assert {"chest_wall", "saturated", "distance"} < set(spec.by_rule)
    assert max(r.value for r in spec.by_rule.values()) <= spec.false_refusals.value


def test_other_kinds_are_measured_whether_they_can_be_read_or_not(gated: Bundle) -> None:
    spec = gated.manifest.gate
    assert spec is not None
    assert (spec.others["disc"].images, spec.others["disc"].value) == (2, 1.0)
    assert (spec.others["breast"].images, spec.others["breast"].value) == (1, 0.0)
    assert spec.others_by_distance["disc"].value <= 0.5, "one of them was never encoded"


def test_spoiled_mammograms_are_refused_but_for_inverted_ones(gated: Bundle) -> None:
    spec = gated.manifest.gate
    assert spec is not None
    refused = {
        kind.removeprefix("validation images, "): rate.value
        for kind, rate in spec.others.items()
        if kind.startswith("validation images, ")
    }
    assert refused.pop("inverted") == spec.false_refusals.value
    assert refused.pop("nipple's half cut off") == refused.pop("half of it saturated") == 1
    assert set(refused) == {"lower half cut off", "upper half cut off", "160 rows"}


def test_card_and_output_tell_it(
    bare: Bundle, gated: Bundle, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = ((b.folder / MODEL_CARD).read_text() for b in (bare, gated))
    assert before.count("## Quality gate") == after.count("## Quality gate") == 1
    assert "MAMMOSEQ_GATE=warn" in before
    assert "MAMMOSEQ_GATE=warn" not in after
    assert after.startswith("# tiny 1.0.1\n")
    assert "| disc | 2 | 100.0% |" in after
    assert after.index("## Quality gate") < after.index("## Precision")
    target = gated.folder.with_name("1.0.2")
    assert main(["--bundle", str(gated.folder), "--gate", str(folder / "manifest.csv"),
                 "--to", str(target)]) == 0  # fmt: skip
    assert "the gate refuses" in capsys.readouterr().out
    again = load_bundle(target)
    assert (again.folder / MODEL_CARD).read_text().count("## Quality gate") == 1
    assert again.gate == gated.gate, "the same images give the same gate"


def test_export_of_a_run_fits_a_gate_as_well(tmp_path: Path, folder: Path, gated: Bundle) -> None:
    run = write_run(tmp_path / "run", small_hybrid())
    target = tmp_path / "store" / "tiny" / "1.0.0"
    assert main(["--model", str(run), "--gate", str(folder / "manifest.csv"),
                 "--to", str(target)]) == 0  # fmt: skip
    made = load_bundle(target).manifest.gate
    assert made is not None
    assert gated.manifest.gate is not None
    assert made.threshold == pytest.approx(gated.manifest.gate.threshold, rel=1e-3)


def test_reduced_bundle_keeps_the_gate(gated: Bundle, tmp_path: Path) -> None:
    images = tmp_path / "images.npz"
    np.savez(images, pixels=pictures(16))
    made = reduce_bundle(gated.folder, tmp_path / "store" / "tiny" / "1.0.0", "fp16", images)
    assert (made.gate, made.manifest.gate) == (gated.gate, gated.manifest.gate)
    assert "## Quality gate" in (made.folder / MODEL_CARD).read_text()


def test_manifest_without_splits_is_refused_and_leaves_nothing(
    bare: Bundle, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "manifest.csv").read_text().replace(",train", ",").replace(",val", ",")
    (folder / "unsplit.csv").write_text(text)
    store = tmp_path / "store"
    assert main(["--bundle", str(bare.folder), "--gate", str(folder / "unsplit.csv"),
                 "--to", str(store / "tiny" / "1.0.0")]) == 1  # fmt: skip
    assert "needs splits" in capsys.readouterr().err
    assert everything_under(store) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bundle", "b"],
        ["--bundle", "b", "--gate", "m", "--calibration", "c"],
        ["--bundle", "b", "--gate", "m", "--precision", "int8"],
        ["--bundle", "b", "--calibration", "c"],
        ["--bundle", "b", "--evaluation", "e", "--gate", "m"],
        ["--bundle", "b", "--evaluation", "e", "--precision", "fp16"],
        ["--model", "r", "--others", "o"],
        ["--model", "r", "--image-root", "i"],
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--to", "s/tiny/1.0.0"])
    assert ended.value.code == 2


def test_altered_breast_is_still_one_and_no_two_are_equal() -> None:
    image, _, _ = crop_breast(decode(real_dicom("explicit"), 10**6)[0], InputGeometry(512, 320))
    rng = np.random.default_rng(0)
    made = [altered(image, rng) for _ in range(20)]
    assert {(one.shape, one.dtype) for one in made} == {(image.shape, image.dtype)}
    assert len({one.tobytes() for one in made}) == 20
    for one in made:
        assert np.corrcoef(one.ravel(), image.ravel())[0, 1] > 0.6
