"""The verb ``simulate``: its set is a data set like any other, and says what is true of it."""

import csv
import json
from datetime import date
from pathlib import Path

import pytest

from app.imaging.preprocess import InputGeometry
from tests.pictures import breast, png
from training import breasts, manifest
from training.config import DataConfig
from training.manifest import ManifestError
from training.run_folder import RunError
from training.simulated_set import SimulateConfig, simulate

HEIGHT, WIDTH = 128, 96


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Eight patients; every fourth has cancer."""
    folder = tmp_path_factory.mktemp("data")
    lines = ["image,patient_id,exam_date,laterality,view,label,split"]
    for i in range(8):
        (folder / f"{i}.png").write_bytes(png(breast(300, 220, seed=i)))
        label = "malignant" if i % 4 == 0 else "no_cancer"
        lines.append(f"{i}.png,p{i},,L,CC,{label},{'val' if i % 2 else 'train'}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return DataConfig(manifest=folder / "manifest.csv", positive_class="malignant")


def config(data: DataConfig, folder: Path, **changes: object) -> SimulateConfig:
    settings: dict[str, object] = {
        "run": folder / "run", "cache": folder / "cache", "data": data, "split": "all",
        "series": 12, "exams": (1, 2), "height": HEIGHT, "width": WIDTH, "observer_series": 500,
    }  # fmt: skip
    return SimulateConfig.model_validate(settings | changes)


@pytest.fixture(scope="module")
def run(data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(config(data, tmp_path_factory.mktemp("made")))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_set_is_read_like_any_other_data(run: Path, tmp_path: Path) -> None:
    images = manifest.with_splits(manifest.read(run / "manifest.csv"), 0.2, 0)
    classes = manifest.classes_of(images, "malignant")
    loaded, left_out = breasts.load(images, classes, InputGeometry(HEIGHT, WIDTH), tmp_path)
    assert len(loaded) == len(images)
    assert not left_out
    assert len({image.patient_id for image in images}) == 12
    assert {image.split for image in images} == {"train", "val"}


def test_only_growing_series_have_the_positive_label(run: Path) -> None:
    for row in rows(run / "manifest.csv"):
        assert (row["label"] == "malignant") == (row["course"] == "growing")


def test_masses_are_put_into_lesion_free_breasts_of_the_same_split(run: Path) -> None:
    for row in rows(run / "manifest.csv"):
        number = int(row["source_patient"].removeprefix("p"))
        assert number % 4 != 0
        assert row["split"] == ("val" if number % 2 else "train")
        assert row["source_image"] == f"{number}.png"


def test_dates_are_as_far_apart_as_the_truth_says(run: Path) -> None:
    exams = rows(run / "manifest.csv")
    for series in rows(run / "truth.csv"):
        dates = [
            date.fromisoformat(row["exam_date"])
            for row in exams
            if row["patient_id"] == series["patient_id"]
        ]
        days = [int(day) for day in series["days"].split()]
        assert [(seen - dates[0]).days for seen in dates] == days
        assert len(days) == int(series["exams"])


def test_run_folder_tells_what_it_holds(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["series"] == sum(metrics["series_of_course"].values()) == 12
    assert {row["exams"] for row in metrics["ideal_observer"]} == {1, 2}
    page = (run / "report.html").read_text()
    for words in ("Weedon-Fekjaer", "Gordon", "EA1141", "ideal observer", "doubling times"):
        assert words in page


def test_stopped_run_goes_on_and_ends_with_the_same_set(
    data: DataConfig, run: Path, tmp_path: Path
) -> None:
    asked = config(data, tmp_path, series=12)
    again = simulate(asked)
    names = [Path(row["image"]) for row in rows(again / "manifest.csv")]
    before = {name: (again / name).read_bytes() for name in names}
    assert before == {name: (run / name).read_bytes() for name in names}

    (again / "series" / "simulated-00003.json").unlink()  # as if killed while writing it
    lost = again / "images" / "simulated-00003" / "1.png"
    kept = again / "images" / "simulated-00004" / "1.png"
    lost.write_bytes(b"half")
    modified = kept.stat().st_mtime_ns
    simulate(asked)
    assert {name: (again / name).read_bytes() for name in names} == before
    assert kept.stat().st_mtime_ns == modified


def test_run_folder_of_another_config_is_refused(data: DataConfig, run: Path) -> None:
    with pytest.raises(RunError, match="seed"):
        simulate(config(data, run.parent, seed=1))


def test_every_fault_is_named_before_anything_is_made(data: DataConfig, tmp_path: Path) -> None:
    wrong = data.model_copy(update={"positive_class": "benign"})
    with pytest.raises(ManifestError) as fault:
        simulate(config(wrong, tmp_path, study_dates=tmp_path / "none.csv"))
    assert "benign" in str(fault.value)
    assert "none.csv" in str(fault.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("exams", [(3, 2), (0, 2)])
def test_exams_out_of_order_are_refused(
    data: DataConfig, tmp_path: Path, exams: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="fewest, most"):
        config(data, tmp_path, exams=exams)


def test_shipped_config_is_valid() -> None:
    from training.config import read_config

    path = Path("training/configs/simulate.toml")
    assert read_config(path, SimulateConfig).data.positive_class == "malignant"


def test_split_without_lesion_free_breasts_is_named(data: DataConfig, tmp_path: Path) -> None:
    lines = data.manifest.read_text().splitlines()
    only_cancer = [line for line in lines if "no_cancer" not in line or ",train" in line]
    extra = "1.png,q,,L,CC,malignant,val"
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join([*only_cancer, extra]))
    there = DataConfig(manifest=path, image_root=data.manifest.parent, positive_class="malignant")
    with pytest.raises(ManifestError, match="free of lesions"):
        simulate(config(there, tmp_path, split="val"))
