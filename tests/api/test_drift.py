"""Scores as metrics: in the buckets of validation, by what was read and by whose machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api.application import create_application
from app.bundle import Bundle, load_bundle, seal
from app.inference.models import Models
from app.inference.pipeline import Pipeline
from app.inference.reference import references_of
from app.settings import Settings
from tests.pictures import breast, dicom, png
from tests.serving import Service, serving, serving_here


@pytest.fixture(scope="module")
def service(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(bundle_folder, tmp_path_factory.mktemp("drift")) as running:
        yield running


def scores(service: Service) -> dict[str, float]:
    """Counts that are not zero, by their labels."""
    found = {}
    for line in service.get("/metrics").text.splitlines():
        if line.startswith("mammoseq_scores_total"):
            labels, _, count = line.removeprefix("mammoseq_scores_total").rpartition(" ")
            if float(count):
                found[labels] = float(count)
    return found


@pytest.mark.parametrize(
    ("exams", "unit", "vendor"),
    [
        ([{"Manufacturer": "HOLOGIC, Inc."}], "image", "hologic"),
        ([{"Manufacturer": "Nobody^Knows"}], "image", "other"),
        ([{}, {"ViewPosition": "CC"}], "breast", "unknown"),
        (
            [{"Manufacturer": "SIEMENS"}, {"Manufacturer": "GE MEDICAL", "ViewPosition": "CC"}],
            "breast",
            "several",
        ),
        (
            [{"Manufacturer": "SIEMENS"}, {"Manufacturer": "FUJIFILM", "StudyDate": "20200101"}],
            "series",
            "siemens",
        ),
    ],
)
def test_a_score_counts_once_in_the_bucket_of_its_unit_and_vendor(
    service: Service, bundle: Bundle, exams: list[dict[str, Any]], unit: str, vendor: str
) -> None:
    before = scores(service)
    common = {"PatientID": "1", "StudyDate": "20210101", "ViewPosition": "MLO"}
    parts = [
        ("files", (f"{i}.dcm", dicom(breast(seed=i), **(common | tags))))
        for i, tags in enumerate(exams)
    ]
    (read,) = service.post("/predict/series", files=parts).raise_for_status().json()["breasts"]
    reference = references_of(bundle)["image" if unit == "image" else "breast"]
    bucket = reference.bucket_of(read["calibrated_probability"])
    manifest = bundle.manifest
    labels = (
        f'{{bucket="{bucket}",model="{manifest.name}/{manifest.version}",'
        f'unit="{unit}",vendor="{vendor}"}}'
    )
    after = scores(service)
    assert after == before | {labels: before.get(labels, 0) + 1}


def test_the_shares_of_validation_are_there_from_the_start(
    service: Service, bundle: Bundle
) -> None:
    manifest = bundle.manifest
    for unit, reference in references_of(bundle).items():
        for bucket, share in enumerate(reference.shares, 1):
            name = (
                f'mammoseq_reference_scores_ratio{{bucket="{bucket}",'
                f'model="{manifest.name}/{manifest.version}",unit="{unit}"}}'
            )
            assert service.metric(name) == pytest.approx(share)


def test_a_bundle_without_figures_is_served_and_counts_no_scores(
    bundle_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "without-figures" / "1.0.0"
    folder.mkdir(parents=True)
    whole = load_bundle(bundle_folder).manifest
    for name in whole.files:
        if name != "figures.json":
            (folder / name).write_bytes((bundle_folder / name).read_bytes())
    bare = seal(
        folder,
        whole.model_dump(exclude={"files"}) | {"name": "without-figures", "version": "1.0.0"},
    )
    settings = Settings()
    with serving_here(create_application(Models(Pipeline(bare, settings)), settings)) as client:
        assert client.post("/predict", content=png(breast())).status_code == 200
        assert 'model="without-figures' not in client.get("/metrics").text
