"""Several models in one service: which of them answers, and what the shadow model does."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.application import create_application
from app.api.choice import falls_to_canary
from app.api.shadow import OUTCOMES
from app.bundle import Bundle, load_bundle
from app.inference.models import Models
from app.inference.pipeline import Pipeline
from app.settings import Settings
from tests.pictures import breast, png
from tests.serving import Service, serving, serving_here
from tests.stores import put_version

SECONDS = 60
QUIET = {"overlay": "none", "map": "false", "gate": "warn"}
IMAGES = [png(breast(300, 200, seed=seed)) for seed in range(15)]
SHARE = 0.4
DEFAULT, CANARY, SHADOW, OTHER = "1.0.0", "1.1.0", "1.2.0", "0.9.0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def service(bundle: Bundle, folder: Path) -> Iterator[Service]:
    """One with a model for each role; they differ in their temperature."""
    name, store = bundle.manifest.name, folder / "store"
    (default,) = [p for p in bundle.manifest.operating_points if p.name == default_point(bundle)]
    pinned = put_version(bundle, store, DEFAULT)
    put_version(bundle, store, CANARY, temperature=3.0, operating_points=[default.model_dump()])
    put_version(bundle, store, SHADOW, temperature=9.0)
    put_version(bundle, store, OTHER, temperature=6.0)
    with serving(
        pinned,
        folder,
        model=f"{name}/{DEFAULT}",
        canary=f"{name}/{CANARY}",
        canary_share=SHARE,
        shadow=name,
        more_models=f"{name}/{OTHER}",
        audit_file=folder / "audit.jsonl",
    ) as service:
        yield service


def default_point(bundle: Bundle) -> str:
    return bundle.manifest.default_operating_point


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answer(service: Service, image: bytes, **query: str) -> dict[str, Any]:
    response = service.post("/predict", content=image, params=QUIET | query)
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told


def version(told: dict[str, Any]) -> str:
    found: str = told["model"]["version"]
    return found


def scored(service: Service, images: Sequence[bytes], **query: str) -> str:
    """The version that answers a series of these images, one a year."""
    files = [("files", (f"{n}.png", image)) for n, image in enumerate(images)]
    exams = [{"date": f"202{n}-01-01", "files": [f"{n}.png"]} for n in range(len(images))]
    series = {"series": json.dumps({"exams": exams})}
    response = service.post("/predict/series", files=files, data=series, params=QUIET | query)
    assert response.status_code == 200, response.text
    return version(response.json())


# which model answers


def test_every_model_is_listed_with_its_roles_the_default_first(service: Service) -> None:
    models = service.get("/v1/models").json()["models"]
    assert [(model["version"], model["roles"]) for model in models] == [
        (DEFAULT, ["default"]),
        (OTHER, ["on_request"]),
        (CANARY, ["canary"]),
        (SHADOW, ["shadow"]),
    ]
    assert service.get("/state").json()["model"].endswith(DEFAULT)
    assert service.get("/healthz/ready").json()["model"].endswith(DEFAULT)


def test_card_and_figures_of_every_model_are_there(service: Service) -> None:
    for model in service.get("/v1/models").json()["models"]:
        for part in ("card", "figures"):
            address = f"/v1/models/{model['name']}/{model['version']}/{part}"
            assert service.get(address).status_code == 200


@pytest.mark.parametrize("wanted", [DEFAULT, CANARY, OTHER])
def test_request_gets_the_model_that_it_names(
    service: Service, bundle: Bundle, wanted: str
) -> None:
    model = f"{bundle.manifest.name}/{wanted}"
    for image in IMAGES[:3]:
        assert version(answer(service, image, model=model)) == wanted
    assert scored(service, IMAGES[:2], model=model) == wanted


@pytest.mark.parametrize("wanted", [DEFAULT, CANARY, OTHER, None])
def test_open_inference_protocol_names_the_model_in_the_address(
    service: Service, bundle: Bundle, wanted: str | None
) -> None:
    name = bundle.manifest.name
    address = f"/v2/models/{name}" + (f"/versions/{wanted}" if wanted else "")
    assert set(service.get(address).json()["versions"]) == {DEFAULT, CANARY, OTHER}
    data = base64.b64encode(IMAGES[0]).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [data]}
    asked = {"inputs": [tensor], "parameters": {"gate": "warn"}}
    found = service.post(f"{address}/infer", json=asked).json()
    assert found["model_version"] == (wanted or DEFAULT)
    (told,) = [one for one in found["outputs"] if one["name"] == "calibrated_probability"]
    expected = answer(service, IMAGES[0], model=f"{name}/{wanted or DEFAULT}")
    assert told["data"] == [pytest.approx(expected["calibrated_probability"], abs=1e-7)]
    unknown = service.post(f"/v2/models/{name}/versions/{SHADOW}/infer", json=asked)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_model")


def test_name_alone_is_the_default_of_that_name(service: Service, bundle: Bundle) -> None:
    for image in IMAGES[:6]:
        assert version(answer(service, image, model=bundle.manifest.name)) == DEFAULT


@pytest.mark.parametrize("model", ["{name}/1.2.0", "{name}/9.9.9", "other", "", "/", "../x/1.0.0"])
def test_model_that_does_not_answer_is_refused_and_those_that_do_are_named(
    service: Service, bundle: Bundle, model: str
) -> None:
    query = QUIET | {"model": model.format(name=bundle.manifest.name)}
    for path in ("/predict", "/predict/series"):
        response = service.post(path, files={"file": ("x", IMAGES[0])}, params=query)
        assert (response.status_code, response.json()["code"]) == (404, "unknown_model")
        assert f"{bundle.manifest.name}/{OTHER}" in response.json()["detail"]
        assert SHADOW not in response.json()["detail"]


def test_models_answer_with_their_own_numbers(service: Service, bundle: Bundle) -> None:
    """As each does when it is asked by its name."""
    name, image = bundle.manifest.name, IMAGES[0]
    scores = {
        v: answer(service, image, model=f"{name}/{v}")["calibrated_probability"]
        for v in (DEFAULT, CANARY, OTHER)
    }
    assert len(set(scores.values())) == len(scores)
    told = answer(service, image)
    assert told["calibrated_probability"] == scores[version(told)]


# the canary


def test_canary_answers_its_share_and_the_same_images_always(service: Service) -> None:
    first = [version(answer(service, image)) for image in IMAGES]
    assert set(first) == {DEFAULT, CANARY}
    assert first[:5] == [version(answer(service, image)) for image in IMAGES[:5]]
    assert [v == CANARY for v in first] == [falls_to_canary([image], SHARE) for image in IMAGES]


def test_files_of_a_study_fall_to_the_same_model_in_any_order(service: Service) -> None:
    studies = [IMAGES[n : n + 2] for n in range(0, 14, 2)]
    found = [scored(service, study) for study in studies]
    assert found == [scored(service, study[::-1]) for study in studies]
    assert [v == CANARY for v in found] == [falls_to_canary(study, SHARE) for study in studies]


def test_share_of_the_canary_is_met() -> None:
    """Of single files and of studies, of which the least hash decides."""
    for files in (1, 4):
        studies = [[f"{n}/{k}".encode() for k in range(files)] for n in range(4000)]
        for share in (0.0, 0.05, 0.5, 1.0):
            found = sum(falls_to_canary(study, share) for study in studies) / len(studies)
            assert found == pytest.approx(share, abs=0.03)


def test_who_falls_to_the_canary_still_does_when_its_share_grows() -> None:
    files = [[str(n).encode()] for n in range(1000)]
    few = [f for f in files if falls_to_canary(f, 0.1)]
    assert all(falls_to_canary(f, 0.3) for f in few)


def test_question_that_the_canary_does_not_know_is_answered_by_the_default(
    service: Service, bundle: Bundle
) -> None:
    (point, *_) = [
        p.name for p in bundle.manifest.operating_points if p.name != default_point(bundle)
    ]
    its = [image for image in IMAGES if falls_to_canary([image], SHARE)]
    assert {version(answer(service, image)) for image in its} == {CANARY}
    assert {version(answer(service, i, operating_point=point)) for i in its} == {DEFAULT}


def test_audit_log_and_log_name_the_model_that_answered(service: Service, folder: Path) -> None:
    told = [answer(service, image) for image in IMAGES[:5]]
    lines = (folder / "audit.jsonl").read_text().splitlines()
    records = {record.get("request_id"): record for record in map(json.loads, lines)}
    for one in told:
        model = one["model"]
        recorded = records[one["request_id"]]["model"]
        assert recorded == {key: model[key] for key in ("name", "version", "sha256")}
        until(lambda one=one: one["request_id"] in service.printed())  # after the answer
        (line,) = [ln for ln in service.printed().splitlines() if one["request_id"] in ln]
        assert f" model={model['name']}/{model['version']}" in line


# the shadow


def test_shadow_is_compared_in_metrics_and_answers_nothing(
    service: Service, bundle: Bundle
) -> None:
    def compared() -> float:
        return sum(
            float(line.rpartition(" ")[2])
            for line in service.get("/metrics").text.splitlines()
            if line.startswith("mammoseq_shadow_breasts_total")
        )

    before = compared()
    answers = []
    for image in IMAGES[:6]:
        now = compared()
        answers.append(version(answer(service, image)))
        until(lambda now=now: compared() == now + 1)  # type: ignore[misc]
    assert compared() == before + 6
    assert SHADOW not in answers
    text = service.get("/metrics").text
    name = bundle.manifest.name
    difference = f'difference_ratio_count{{model="{name}/{DEFAULT}",shadow="{name}/{SHADOW}"}}'
    assert service.metric(f"mammoseq_shadow_{difference}") > 0
    # what the shadow scores is in no histogram of what was answered
    assert f'mammoseq_scores_total{{bucket="1",model="{name}/{SHADOW}"' not in text


@pytest.fixture
def two(bundle: Bundle, tmp_path: Path) -> Iterator[tuple[httpx.Client, Pipeline]]:
    """A service in this process with a shadow to break, and that."""
    settings = Settings(workers=2)
    default = Pipeline(bundle, settings)
    other = load_bundle(put_version(bundle, tmp_path, "9.0.0", temperature=2.0))
    shadow = Pipeline(other, settings, default.compute)
    with serving_here(create_application(Models(default, shadow=shadow), settings)) as client:
        yield client, shadow


def outcomes(client: httpx.Client, shadow: Pipeline) -> Counter[str]:
    text = client.get("/metrics").text.splitlines()
    found: Counter[str] = Counter()
    for outcome in OUTCOMES:
        sample = f'mammoseq_shadow_studies_total{{outcome="{outcome}",shadow="{shadow.model}"}} '
        found[outcome] = sum(int(float(x.removeprefix(sample))) for x in text if sample in x)
    return found


@pytest.mark.parametrize("place", ["_encode", "read"])
def test_shadow_that_fails_harms_no_answer(
    two: tuple[httpx.Client, Pipeline], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    client, shadow = two

    def fails(*_: object) -> None:
        raise MemoryError("too much")

    monkeypatch.setattr(shadow, place, fails)
    before = outcomes(client, shadow)
    for n, image in enumerate(IMAGES[:3], 1):
        response = client.post("/predict", content=image, params=QUIET)
        assert response.status_code == 200
        assert response.json()["model"]["version"] != "9.0.0"
        until(lambda n=n: outcomes(client, shadow) - before == Counter(failed=n))  # type: ignore[misc]
    assert client.get("/healthz/ready").status_code == 200


def test_shadow_that_hangs_delays_no_answer_and_others_are_passed_over(
    two: tuple[httpx.Client, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, shadow = two
    go_on, look = threading.Event(), shadow._look

    def hangs(*args: Any) -> Any:
        assert go_on.wait(SECONDS)
        return look(*args)

    monkeypatch.setattr(shadow, "_look", hangs)
    before = outcomes(client, shadow)
    for image in IMAGES[:4]:
        assert client.post("/predict", content=image, params=QUIET).status_code == 200
    until(lambda: outcomes(client, shadow) - before == Counter(passed_over=3))
    go_on.set()
    until(lambda: outcomes(client, shadow) - before == Counter(passed_over=3, scored=1))
