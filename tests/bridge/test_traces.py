"""One trace from the archive to the answer: the bridge begins it, the service goes on with it."""

from __future__ import annotations

from pathlib import Path

from tests.bridge.hospital import Hospital
from tests.bridge.processes import bridge, service, started
from tests.bridge.studies import study
from tests.collector import collecting
from tests.orthanc import running_orthanc


def test_a_study_is_one_trace_through_bridge_and_service(
    bundle_folder: Path, tmp_path: Path
) -> None:
    with collecting() as received, running_orthanc(tmp_path) as archive:
        mammoseq = service(bundle_folder, tmp_path, traces_url=received.url)
        between = bridge(archive, mammoseq.url, tmp_path, traces_url=received.url)
        hospital = Hospital(tmp_path, archive, mammoseq, between)
        with started(mammoseq, between):
            sent = study("traced", views=("LCC", "RCC"))
            hospital.send(sent)
            hospital.wait_for_reports(sent)
            hospital.wait_for_metric("mammoseq_bridge_studies_read_total", 1)
            assert between.terminate() == 0
            printed = between.printed()
            assert mammoseq.terminate() == 0
        spans = {span.span_id: span for span in received.spans}
        told = b"".join(received.bodies)
    (whole,) = [span for span in spans.values() if span.attributes.get("mammoseq.images") == 2
                and span.name == "study"]  # fmt: skip
    assert (whole.parent, whole.process["service.name"]) == ("", "mammoseq-bridge")
    its = sorted((s for s in spans.values() if s.trace_id == whole.trace_id), key=lambda s: s.start)
    assert [span.name for span in its if span.parent == whole.span_id] == [
        "look", "fetch", "fetch priors", "POST", "look", "store",
    ]  # fmt: skip
    (request,) = [span for span in its if span.kind == "server"]
    assert (request.name, request.process["service.name"]) == ("POST /predict/series", "mammoseq")
    asked = spans[request.parent]
    assert (asked.name, asked.kind, asked.parent) == ("POST", "client", whole.span_id)
    assert asked.attributes["http.response.status_code"] == 200
    assert {span.parent for span in its if span.name == "render"} == {request.span_id}
    assert f"trace_id={whole.trace_id} images=2" in printed
    for secret in (sent.uid, *sent.images):
        assert secret.encode() not in told
