"""The DICOMweb client at a real Orthanc."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread

from app.bridge.dicomweb import Archive, TooLarge
from app.bridge.faults import Unavailable
from tests.bridge.studies import Sent, compressed_view, ct_study, study
from tests.orthanc import Orthanc, running_orthanc
from tests.pictures import patched
from tests.serving import free_port

ANSWERS_REPORTS_WITH_NO = """
function ReceivedInstanceFilter(dicom)
  return dicom.Modality ~= 'SR'
end
"""


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    folder = tmp_path_factory.mktemp("archive")
    script = folder / "filter.lua"
    script.write_text(ANSWERS_REPORTS_WITH_NO)
    with running_orthanc(folder, LuaScripts=[str(script)]) as running:
        yield running


@pytest.fixture(scope="module")
def sent(orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    sent = study("1", days_ago=3)
    sent.files.append(compressed_view(sent.uid, "LCC", "1", 3))
    orthanc.send(tmp_path_factory.mktemp("sent"), sent.files)
    return sent


@pytest.fixture
def archive(orthanc: Orthanc) -> Iterator[Archive]:
    with httpx.Client(base_url=orthanc.web, trust_env=False) as client:
        yield Archive(client)


def test_studies_are_found_by_modality_and_date(
    orthanc: Orthanc, archive: Archive, sent: Sent, tmp_path: Path
) -> None:
    other = ct_study()
    orthanc.send(tmp_path, other.files)
    date = str(dcmread(BytesIO(sent.files[0])).StudyDate)
    for matching, expected in (
        ({"ModalitiesInStudy": "MG"}, [sent.uid]),
        ({"ModalitiesInStudy": "MG", "StudyDate": f"{date}-"}, [sent.uid]),
        ({"ModalitiesInStudy": "MG", "StudyDate": f"{int(date) + 1}-"}, []),
        ({"ModalitiesInStudy": "CT"}, [other.uid]),
        ({"ModalitiesInStudy": "US"}, []),
    ):
        assert [found.uid for found in archive.studies(matching)] == expected, matching
    (found,) = archive.studies({"ModalitiesInStudy": "MG"})
    assert (found.date, found.instances) == (date, 5)


@pytest.mark.parametrize("patient", ["7-a.b_c", "7 8", "7/8^9&x=y#z", "7*", "7?8", "é7", "7%208"])
def test_a_patient_is_found_by_any_id(
    orthanc: Orthanc, archive: Archive, tmp_path: Path, patient: str
) -> None:
    new = study(PatientID=patient, SpecificCharacterSet="ISO_IR 100", Modality="CT")
    orthanc.send(tmp_path, new.files)
    found = archive.studies({"PatientID": patient})
    assert [s.uid for s in found if s.patient_id == patient] == [new.uid]


def test_instances_come_with_modality_and_description_of_their_series(
    archive: Archive, sent: Sent
) -> None:
    instances = archive.instances(sent.uid)
    assert {instance.uid for instance in instances} == sent.images
    assert len(instances) == 5
    assert {instance.modality for instance in instances} == {"MG"}
    assert {instance.series_description for instance in instances} == {
        "L CC", "L MLO", "R CC", "R MLO",
    }  # fmt: skip


def test_an_unknown_study_has_no_instances(archive: Archive) -> None:
    assert archive.instances("1.2.3") == []


def test_images_are_retrieved_in_the_transfer_syntax_they_are_stored_in(
    archive: Archive, sent: Sent
) -> None:
    stored = {str(dcmread(BytesIO(f)).SOPInstanceUID): dcmread(BytesIO(f)) for f in sent.files}
    for instance in archive.instances(sent.uid):
        retrieved = dcmread(BytesIO(archive.retrieve(sent.uid, instance, 10**7)))
        original = stored[instance.uid]
        assert retrieved.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        assert retrieved.PixelData == original.PixelData


def test_no_more_bytes_are_taken_than_allowed(archive: Archive, sent: Sent) -> None:
    instance = archive.instances(sent.uid)[0]
    size = len(archive.retrieve(sent.uid, instance, 10**7))
    assert len(archive.retrieve(sent.uid, instance, size)) == size
    for limit in (size - 1, 100):
        with pytest.raises(TooLarge):
            archive.retrieve(sent.uid, instance, limit)


def test_storing_twice_is_storing_once(archive: Archive) -> None:
    new = study("stored", views=("LCC", "RCC"))
    files = dict(zip(sorted(new.images), new.files, strict=True))
    for _ in range(2):
        archive.store(new.uid, files)
        assert len(archive.instances(new.uid)) == 2


def test_an_instance_that_is_not_kept_is_not_called_stored(archive: Archive) -> None:
    new = study("refused", views=("LCC",))
    report = patched(new.files[0], Modality="SR")
    with pytest.raises(Unavailable) as fault:
        archive.store(new.uid, dict.fromkeys(new.images, report))
    assert (fault.value.side, fault.value.code) == ("archive", "not_stored")


def test_an_instance_of_another_study_is_not_called_stored(archive: Archive, sent: Sent) -> None:
    new = study("elsewhere", views=("LCC",))
    with pytest.raises(Unavailable) as fault:
        archive.store(sent.uid, dict.fromkeys(new.images, new.files[0]))
    assert fault.value.code == "not_stored"


def test_an_archive_that_does_not_answer_is_unavailable_to_everyone() -> None:
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{free_port()}", trust_env=False) as client,
        pytest.raises(Unavailable, match=r"^archive: unreachable$") as fault,
    ):
        Archive(client).studies({"PatientID": "secret"})
    assert fault.value.everyone
