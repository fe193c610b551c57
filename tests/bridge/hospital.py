"""An archive, the service and the bridge between them, all real and running."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydicom import Dataset

from app.access.keys import hash_of, new_key
from tests.bridge.processes import Part, bridge, service, started, until
from tests.bridge.studies import Sent
from tests.orthanc import Orthanc, running_orthanc

RESULT_SECONDS = 120  # on a machine that does other things, too

SEVERAL_ROUNDS = 2.0  # seconds; a bridge in a hurry looks at the archive nearly five times in one
_ANSWERED = 'mammoseq_bridge_last_success_timestamp_seconds{side="archive"}'
_WAITING = "mammoseq_bridge_waiting_studies"


@dataclass(frozen=True)
class Hospital:
    """The three parts, and what can be asked of them."""

    folder: Path
    archive: Orthanc
    service: Part
    bridge: Part

    def send(self, *studies: Sent) -> None:
        self.archive.send(self.folder / "sent", [file for study in studies for file in study.files])

    def results(self, sent: Sent) -> list[Dataset]:
        """What the archive holds in a study besides what was sent."""
        found = self.archive.instances(sent.uid)
        return [instance for instance in found if instance.SOPInstanceUID not in sent.images]

    def reports(self, sent: Sent) -> list[Dataset]:
        return [result for result in self.results(sent) if result.Modality == "SR"]

    def wait_for_reports(self, *studies: Sent, number: int = 1) -> None:
        def all_there() -> bool:
            return all(len(self.reports(study)) >= number for study in studies)

        until(all_there, seconds=RESULT_SECONDS, what="every study has its report")

    def wait_for_metric(self, sample: str, value: float) -> None:
        until(lambda: self.bridge.metric(sample) >= value, seconds=RESULT_SECONDS, what=sample)

    def let_rounds_pass(self) -> None:
        """The bridge has looked several times from now on, and nothing is left to be read."""
        self.wait_for_metric(_ANSWERED, time.time() + SEVERAL_ROUNDS)
        until(lambda: self.bridge.metric(_WAITING) == 0, seconds=RESULT_SECONDS, what="all is read")


@contextmanager
def running_hospital(
    bundle_folder: Path,
    folder: Path,
    preload: Mapping[str, str] = MappingProxyType({}),
    **of_bridge: object,
) -> Iterator[Hospital]:
    """A fresh archive, and a service that asks for a key; everything is killed at the end.
    ``preload`` and ``of_bridge`` as for ``bridge``."""
    key = new_key()
    with running_orthanc(folder) as archive:
        mammoseq = service(bundle_folder, folder, access="login", api_keys=f"bridge:{hash_of(key)}")
        between = bridge(archive, mammoseq.url, folder, preload, service_api_key=key, **of_bridge)
        with started(mammoseq, between):
            yield Hospital(folder, archive, mammoseq, between)


def evidence(report: Dataset) -> set[str]:
    """SOP Instance UIDs of the images that a report names as evidence."""
    return {
        str(image.ReferencedSOPInstanceUID)
        for name in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for of_study in report.get(name, ())
        for series in of_study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }


def assert_each_once(hospital: Hospital, sent: Sent, *, reports: int = 1) -> None:
    """A study has so many reports, each with an overlay of each image that it names, and nothing
    twice."""
    results = hospital.results(sent)
    read = [evidence(result) & sent.images for result in results if result.Modality == "SR"]
    assert len(read) == reports
    assert len(results) - reports == sum(map(len, read))
    assert set(Counter(str(result.SOPInstanceUID) for result in results).values()) == {1}
