"""``storescu`` to a real Orthanc, the service and the bridge as processes: what comes back, and
that nothing is lost or doubled whoever is killed."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bridge.hospital import (
    RESULT_SECONDS,
    SEVERAL_ROUNDS,
    Hospital,
    assert_each_once,
    evidence,
    running_hospital,
)
from tests.bridge.processes import bridge, started, until
from tests.bridge.studies import (
    SECRETS,
    Sent,
    blank_study,
    blank_view,
    compressed_view,
    ct_study,
    study,
    view,
)
from tests.pictures import patched
from tests.real_parts import require

READ = "mammoseq_bridge_studies_read_total"
REFUSED_AS_BLANK = 'mammoseq_bridge_studies_refused_total{code="no_breast_found"}'
ALONE = "mammoseq_bridge_studies_without_priors_total"
NOT_STORED = 'mammoseq_bridge_failures_total{code="not_stored",side="archive"}'
NO_REPORTS = """
function ReceivedInstanceFilter(dicom)
  return dicom.Modality ~= 'SR'
end
"""


@pytest.fixture(scope="module")
def hospital(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with running_hospital(bundle_folder, tmp_path_factory.mktemp("hospital")) as running:
        yield running


@dataclass(frozen=True)
class Patient:
    current: Sent
    priors: tuple[Sent, ...]


@pytest.fixture(scope="module")
def patient(hospital: Hospital) -> Patient:
    """One patient with two earlier studies, older than the bridge looks back, and a study of
    today with a compressed image, read."""
    priors = (study("A 1", days_ago=730), study("A 1", days_ago=365, views=("LCC", "RCC")))
    others = study("A_1", days_ago=365)  # the archive's wildcards would take it for the same
    current = study("A 1")
    current.files[0] = compressed_view(current.uid, "LCC", "A 1")
    hospital.send(*priors, others, current)
    hospital.wait_for_reports(current)
    return Patient(current, priors)


def test_a_study_gets_a_report_that_names_its_images_and_those_of_its_priors(
    hospital: Hospital, patient: Patient
) -> None:
    (report,) = hospital.reports(patient.current)
    assert evidence(report) == patient.current.images.union(*(p.images for p in patient.priors))


def test_results_are_known_as_the_services(hospital: Hospital, patient: Patient) -> None:
    results = hospital.results(patient.current)
    assert Counter(result.Modality for result in results)["SR"] == 1
    assert len(results) > 1
    for result in results:
        assert result.StudyInstanceUID == patient.current.uid
        assert result.Manufacturer == "Mammoseq"
        assert result.SeriesDescription.startswith("Mammoseq ")


def test_results_are_valid_for_independent_readers(
    hospital: Hospital, patient: Patient, tmp_path: Path
) -> None:
    for number, result in enumerate(hospital.results(patient.current)):
        file = tmp_path / f"{number}.dcm"
        result.save_as(file, enforce_file_format=True)
        checked = subprocess.run(
            [require("dciodvfy"), str(file)], capture_output=True, text=True, check=False
        )
        lines = checked.stdout.splitlines() + checked.stderr.splitlines()
        assert not [line for line in lines if line.startswith("Error")]
        if result.Modality == "SR":
            dumped = subprocess.run(
                [require("dsrdump"), str(file)], capture_output=True, text=True, check=True
            )
            assert "Mammoseq" in dumped.stdout


def test_priors_beyond_the_look_back_get_no_results(hospital: Hospital, patient: Patient) -> None:
    for prior in patient.priors:
        assert hospital.results(prior) == []


def test_results_are_not_taken_for_new_images(hospital: Hospital, patient: Patient) -> None:
    read = hospital.bridge.metric(READ)
    before = {str(result.SOPInstanceUID) for result in hospital.results(patient.current)}
    hospital.let_rounds_pass()
    assert {str(r.SOPInstanceUID) for r in hospital.results(patient.current)} == before
    assert hospital.bridge.metric(READ) == read


def test_a_restarted_bridge_reads_nothing_again(hospital: Hospital, patient: Patient) -> None:
    """What is done it learns from the archive alone."""
    hospital.bridge.kill()
    hospital.bridge.start()
    hospital.let_rounds_pass()
    assert hospital.bridge.metric(READ) == 0


@pytest.mark.parametrize("description", ["Mammoseq heatmap", "as the archive likes it"])
def test_a_result_of_modality_mg_is_not_read(
    hospital: Hospital, patient: Patient, description: str
) -> None:
    """As another version of the service may have stored it."""
    before = {str(result.SOPInstanceUID) for result in hospital.results(patient.current)}
    own = view(
        patient.current.uid, "LML", "A 1", Manufacturer="Mammoseq", SeriesDescription=description
    )
    hospital.send(Sent(patient.current.uid, [own]))
    hospital.let_rounds_pass()
    after = {str(result.SOPInstanceUID) for result in hospital.results(patient.current)}
    assert len(after - before) == 1


def test_a_late_image_makes_one_more_report(hospital: Hospital) -> None:
    sent = study("late", views=("LCC", "RCC"))
    hospital.send(sent)
    hospital.wait_for_reports(sent)
    sent.files.append(view(sent.uid, "LMLO", "late"))
    hospital.send(Sent(sent.uid, sent.files[-1:]))
    hospital.wait_for_reports(sent, number=2)
    hospital.let_rounds_pass()
    assert_each_once(hospital, sent, reports=2)
    assert sorted(len(evidence(report)) for report in hospital.reports(sent)) == [2, 3]


def test_what_is_not_a_mammogram_is_refused_once(hospital: Hospital) -> None:
    blank, other = blank_study(), ct_study()
    hospital.send(blank, other)
    hospital.wait_for_metric(REFUSED_AS_BLANK, 1)
    hospital.let_rounds_pass()
    assert hospital.bridge.metric(REFUSED_AS_BLANK) == 1
    assert hospital.results(blank) == hospital.results(other) == []


def test_an_image_that_the_service_leaves_out_does_not_have_the_study_read_again(
    hospital: Hospital,
) -> None:
    sent = study("partly blank", views=("LCC", "RCC"))
    sent.files.append(blank_view(sent.uid, "LMLO", "partly blank"))
    hospital.send(sent)
    hospital.wait_for_reports(sent)
    hospital.let_rounds_pass()
    read = hospital.bridge.metric(READ)
    hospital.let_rounds_pass()
    assert hospital.bridge.metric(READ) == read
    assert_each_once(hospital, sent)


def test_a_damaged_prior_does_not_keep_the_study_from_being_read(hospital: Hospital) -> None:
    prior = study("damaged", days_ago=400, views=("LCC",))
    prior.files[0] = patched(prior.files[0], PixelData=b"\0" * 1000)
    current = study("damaged", views=("LCC",))
    alone = hospital.bridge.metric(ALONE)
    hospital.send(prior, current)
    hospital.wait_for_reports(current)
    (report,) = hospital.reports(current)
    assert evidence(report) == current.images
    assert hospital.bridge.metric(ALONE) == alone + 1


def test_a_study_of_which_nothing_can_be_read_gets_no_report_about_its_priors(
    hospital: Hospital,
) -> None:
    prior = study("faded", days_ago=400, views=("LCC",))
    current = study("faded", views=())
    current.files.append(blank_view(current.uid, "LCC", "faded"))
    refused = hospital.bridge.metric(REFUSED_AS_BLANK)
    hospital.send(prior, current)
    hospital.wait_for_metric(REFUSED_AS_BLANK, refused + 1)
    hospital.let_rounds_pass()
    assert hospital.bridge.metric(REFUSED_AS_BLANK) == refused + 1
    assert hospital.results(prior) == hospital.results(current) == []


def test_nothing_is_lost_or_doubled_whoever_is_killed(hospital: Hospital) -> None:
    """Each part is killed while studies are being read, others arrive, and it comes back."""
    sent: list[Sent] = []
    for victim in (hospital.archive, hospital.service, hospital.bridge):
        before = [study(f"killed {len(sent) + n}", views=("LCC", "LMLO")) for n in range(6)]
        after = study(f"killed {len(sent) + 6}", views=("LCC", "LMLO"))
        read = hospital.bridge.metric(READ)
        hospital.send(*before)
        hospital.wait_for_metric(READ, read + 1)
        victim.kill()
        if victim is not hospital.archive:
            hospital.send(after)
        time.sleep(0.5)
        victim.start()
        if victim is hospital.archive:
            hospital.send(after)
        sent += [*before, after]
    hospital.wait_for_reports(*sent)
    hospital.let_rounds_pass()
    for one in sent:
        assert_each_once(hospital, one)


def test_a_bridge_killed_before_the_report_stores_no_overlay_twice(hospital: Hospital) -> None:
    """The archive takes the overlays and not the report, then everything dies."""
    script = hospital.folder / "filter.lua"
    script.write_text(NO_REPORTS)
    hospital.archive.kill()
    hospital.archive.start(LuaScripts=[str(script)])
    sent = study("halfway", views=("LCC", "RCC"))
    hospital.send(sent)
    until(lambda: bool(hospital.results(sent)), seconds=RESULT_SECONDS, what="overlays are stored")
    hospital.wait_for_metric(NOT_STORED, 1)
    assert hospital.reports(sent) == []
    overlays = {str(overlay.SOPInstanceUID) for overlay in hospital.results(sent)}
    hospital.bridge.kill()
    hospital.archive.kill()
    hospital.archive.start(LuaScripts=[])
    hospital.bridge.start()
    hospital.wait_for_reports(sent)
    assert_each_once(hospital, sent)
    assert {str(r.SOPInstanceUID) for r in hospital.results(sent) if r.Modality != "SR"} == overlays


def test_two_bridges_store_what_one_stores(hospital: Hospital, tmp_path: Path) -> None:
    second = bridge(hospital.archive, hospital.service.url, tmp_path)
    with started(second):
        sent = [study(f"two {number}", views=("LCC", "RCC")) for number in range(4)]
        hospital.send(*sent)
        hospital.wait_for_reports(*sent)
        hospital.let_rounds_pass()
    for one in sent:
        assert_each_once(hospital, one)


def test_the_log_and_the_metrics_name_nobody(hospital: Hospital, patient: Patient) -> None:
    printed = hospital.bridge.printed()
    assert "images=4 priors=6" in printed
    shown = printed + hospital.bridge.metrics()
    for secret in (*SECRETS, patient.current.uid, *patient.current.images, "internal_error"):
        assert secret not in shown


def test_sigterm_ends_the_bridge_with_success(hospital: Hospital) -> None:
    """Also while it waits for a side that does not answer."""
    assert hospital.bridge.terminate() == 0
    hospital.service.kill()
    hospital.bridge.start()
    hospital.send(study("stopped", views=("LCC",)))
    time.sleep(SEVERAL_ROUNDS)
    assert hospital.bridge.terminate() == 0
