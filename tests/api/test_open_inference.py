"""The Open Inference Protocol at a real server, asked by a real client (``tritonclient``): the same
numbers as ``/predict``, and nothing that can be sent makes it fail."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from app.access.keys import hash_of, new_key
from app.api.protocol import OUTPUTS
from app.bundle import DISCLAIMER, Bundle
from app.imaging.decode import decode_reduced
from app.imaging.preprocess import InputGeometry
from app.imaging.reduced import preprocess_reduced
from app.render.heatmap import encode_map
from tests.api.test_gate import STRANGE
from tests.api.test_refusals import refused
from tests.pictures import breast, dicom, png, real_dicom, sixteen_bit
from tests.serving import REPOSITORY, Service, serving

FILES = [real_dicom("explicit"), png(breast()), png(sixteen_bit(breast(700, 500, right=True)))]
INFERRED = 'mammoseq_requests_total{route="/v2/models/{name}/infer",status="200"}'
Tensor = dict[str, Any]


@pytest.fixture(scope="module")
def client(server: Service) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.client.base_url.netloc.decode()) as client:
        yield client


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> str:
    return bundle.manifest.name


@pytest.fixture(scope="module")
def predictions(server: Service) -> list[dict[str, Any]]:
    """What ``/predict`` says of ``FILES``."""
    query = {"overlay": "none", "map": "true"}
    answers = [server.post("/predict", content=data, params=query) for data in FILES]
    return [answer.json() for answer in answers]


@pytest.fixture(scope="module")
def pixels(bundle: Bundle) -> NDArray[np.float32]:
    """``FILES`` as the service preprocesses them, [images, height, width, 1]."""
    size = InputGeometry(bundle.manifest.input.height, bundle.manifest.input.width)
    reduced = [decode_reduced(d, 10**8, size, frozenset(), long_side=None) for d in FILES]
    return np.stack([preprocess_reduced(one, size).tensor for one in reduced])


def files_input(files: list[bytes], *, binary: bool = True) -> triton.InferInput:
    """In JSON as base64: that of the client takes text only."""
    elements = files if binary else [base64.b64encode(data) for data in files]
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(np.array(elements, object), binary_data=binary)
    return tensor


def pixels_input(pixels: NDArray[np.float32], *, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("pixels", list(pixels.shape), "FP32")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    return tensor


def all_outputs(*, binary: bool) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]


def same(result: triton.InferResult, predictions: list[dict[str, Any]]) -> None:
    """The result is that of ``/predict``, image by image, to the last bit of 32."""
    probabilities = [list(answer["probabilities"].values()) for answer in predictions]
    assert (result.as_numpy("probabilities") == np.float32(probabilities)).all()
    calibrated = np.float32([answer["calibrated_probability"] for answer in predictions])
    assert (result.as_numpy("calibrated_probability") == calibrated).all()
    labels = [text.decode() for text in texts(result, "prediction")]
    assert labels == [answer["prediction"]["class"] for answer in predictions]
    maps = result.as_numpy("heatmap")
    assert maps.dtype == np.float32
    for heatmap, answer in zip(maps, predictions, strict=True):
        told = answer["heatmap"]
        assert heatmap.max() == np.float32(told["maximum"])
        plain = base64.b64encode(encode_map(heatmap, told["scale"])).decode()
        assert plain == told["map"]["data"]


def texts(result: triton.InferResult, name: str) -> list[bytes]:
    """Elements of BYTES, which the client gives as text where they came in JSON."""
    found = result.as_numpy(name)
    return [one if isinstance(one, bytes) else str(one).encode() for one in found]


# what it is


def test_client_finds_the_service_live_and_its_model_ready(
    client: triton.InferenceServerClient, bundle: Bundle, model: str
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    assert client.is_model_ready(model, bundle.manifest.version)
    assert not client.is_model_ready("no-such-model")
    assert not client.is_model_ready(model, "9.9.9")


def test_service_names_itself_and_the_extension_that_it_has(
    client: triton.InferenceServerClient, server: Service
) -> None:
    version = server.get("/openapi.json").json()["info"]["version"]
    assert client.get_server_metadata() == {
        "name": "mammoseq",
        "version": version,
        "extensions": ["binary_tensor_data"],
        "disclaimer": DISCLAIMER,
    }


@pytest.mark.parametrize("versioned", [False, True])
def test_model_says_what_it_takes_and_gives(
    client: triton.InferenceServerClient, bundle: Bundle, *, versioned: bool
) -> None:
    manifest = bundle.manifest
    size, grid = manifest.input, manifest.heatmap
    said = client.get_model_metadata(manifest.name, manifest.version if versioned else "")
    parameters = said.pop("parameters")
    assert said == {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "FP32", "shape": [-1, size.height, size.width, 1]},
        ],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(manifest.classes)]},
            {"name": "calibrated_probability", "datatype": "FP32", "shape": [-1]},
            {"name": "prediction", "datatype": "BYTES", "shape": [-1]},
            {"name": "warnings", "datatype": "BYTES", "shape": [-1]},
            {"name": "heatmap", "datatype": "FP32", "shape": [-1, grid.rows, grid.columns]},
        ],
    }
    assert parameters["disclaimer"] == DISCLAIMER
    assert parameters["classes"] == list(manifest.classes)
    assert parameters["sha256"] == bundle.sha256
    assert tuple(parameters["value_range"]) == size.value_range


# the same numbers


@pytest.mark.parametrize("binary_answer", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_files_get_the_numbers_of_predict(
    client: triton.InferenceServerClient,
    model: str,
    predictions: list[dict[str, Any]],
    *,
    binary: bool,
    binary_answer: bool,
) -> None:
    outputs = all_outputs(binary=binary_answer)
    same(client.infer(model, [files_input(FILES, binary=binary)], outputs=outputs), predictions)


def test_a_single_file_gets_them_too(
    client: triton.InferenceServerClient,
    bundle: Bundle,
    model: str,
    predictions: list[dict[str, Any]],
) -> None:
    result = client.infer(
        model, [files_input(FILES[:1])], model_version=bundle.manifest.version, request_id="42"
    )
    same(result, predictions[:1])
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"]) == (model, bundle.manifest.version)
    assert answer["id"] == "42"
    assert [output["name"] for output in answer["outputs"]] == list(OUTPUTS)


@pytest.mark.parametrize("binary", [True, False])
def test_pixels_that_are_preprocessed_get_them_too(
    client: triton.InferenceServerClient,
    model: str,
    pixels: NDArray[np.float32],
    predictions: list[dict[str, Any]],
    *,
    binary: bool,
) -> None:
    tensor = pixels_input(pixels, binary=binary)
    same(client.infer(model, [tensor], outputs=all_outputs(binary=binary)), predictions)


def test_numbers_in_json_may_be_nested(
    server: Service, model: str, pixels: NDArray[np.float32], predictions: list[dict[str, Any]]
) -> None:
    tensor = {
        "name": "pixels",
        "datatype": "FP32",
        "shape": list(pixels[:1].shape),
        "data": pixels[:1].tolist(),
    }
    found = outputs_of(posted(server, model, [tensor]))
    assert np.float32(found["calibrated_probability"]["data"]) == np.float32(
        predictions[0]["calibrated_probability"]
    )


# what is asked and answered


def posted(
    server: Service,
    model: str,
    inputs: Any,
    behind: bytes = b"",
    *,
    length: str | None = None,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> httpx.Response:
    """A request made by hand, with ``behind`` its JSON."""
    text = json.dumps({"inputs": inputs, **more}).encode()
    stated = {"Inference-Header-Content-Length": length or str(len(text))} if behind else {}
    return server.post(
        f"/v2/models/{model}/infer", content=text + behind, headers=stated | (headers or {})
    )


def outputs_of(answer: httpx.Response) -> dict[str, Tensor]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return {output["name"]: output for output in answer.json()["outputs"]}


def image(*files: bytes, **changed: Any) -> Tensor:
    data = [base64.b64encode(file).decode() for file in files]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(files)], "data": data}
    return {key: value for key, value in (tensor | changed).items() if value is not None}


def test_every_answer_says_that_it_is_no_medical_device_and_what_it_was_made_with(
    server: Service, bundle: Bundle, model: str
) -> None:
    answer = posted(server, model, [image(FILES[0])], headers={"X-Request-ID": "mine"})
    point = bundle.manifest.operating_point(None)
    assert point is not None
    assert answer.json()["parameters"] == {
        "disclaimer": DISCLAIMER,
        "request_id": "mine",
        "model_sha256": bundle.sha256,
        "positive_class": bundle.manifest.positive_class,
        "target_class": bundle.manifest.positive_class,
        "operating_point": point.name,
        "threshold": point.threshold,
    }
    assert "id" not in answer.json()


def test_only_the_outputs_that_are_wanted_come_each_in_its_form(
    server: Service, model: str
) -> None:
    wanted = [
        {"name": "prediction", "parameters": {"binary_data": True}},
        {"name": "calibrated_probability"},
        {"name": "heatmap", "parameters": {"binary_data": True}},
    ]
    answer = posted(server, model, [image(FILES[0])], outputs=wanted)
    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers["inference-header-content-length"])
    label, probability, heatmap = json.loads(answer.content[:end])["outputs"]
    size = label["parameters"]["binary_data_size"]
    (length,) = struct.unpack("<I", answer.content[end : end + 4])
    assert length == size - 4
    assert answer.content[end + 4 : end + size] in (b"no_cancer", b"malignant")
    assert 0 < probability["data"][0] < 1
    rest = np.frombuffer(answer.content[end + size :], "<f4")
    assert heatmap["parameters"]["binary_data_size"] == rest.nbytes
    assert rest.size == np.prod(heatmap["shape"])


def test_parameters_do_what_the_query_of_predict_does(
    server: Service, bundle: Bundle, model: str
) -> None:
    options = {"operating_point": "sensitivity-90", "target": bundle.manifest.classes[0]}
    expected = server.post("/predict", content=FILES[0], params=options).json()
    answer = posted(server, model, [image(FILES[0])], parameters=options)
    found = outputs_of(answer)
    assert found["prediction"]["data"] == [expected["prediction"]["class"]]
    assert max(found["heatmap"]["data"]) == np.float32(expected["heatmap"]["maximum"])
    told = answer.json()["parameters"]
    assert (told["operating_point"], told["target_class"]) == tuple(options.values())


def test_what_the_gate_lets_through_with_a_warning_is_told(server: Service, model: str) -> None:
    strange, code = STRANGE["nipple cut off"]
    tensors = [image(FILES[0], strange)]
    assert refused(posted(server, model, tensors), code)["detail"].startswith("Image 1: ")
    found = outputs_of(posted(server, model, tensors, parameters={"gate": "warn"}))
    clean, warned = found["warnings"]["data"]
    assert clean == ""
    assert code in warned.split(",")


def test_the_gate_knows_pixels_that_are_no_mammogram_by_their_features(
    server: Service, client: triton.InferenceServerClient, bundle: Bundle, model: str
) -> None:
    size = bundle.manifest.input
    noise = np.random.default_rng(0).uniform(-1, 1, (1, size.height, size.width, 1))
    tensor = pixels_input(noise.astype(np.float32))
    with pytest.raises(InferenceServerException, match="unfamiliar_image"):
        client.infer(model, [tensor])
    result = client.infer(model, [tensor], parameters={"gate": "warn"})
    assert texts(result, "warnings") == [b"unfamiliar_image"]


def test_parameters_that_others_have_are_let_be(
    client: triton.InferenceServerClient, model: str
) -> None:
    client.infer(
        model, [files_input(FILES[:1])], priority=1, timeout=10**9, parameters={"theirs": "x"}
    )


def test_what_is_left_out_may_be_null(server: Service, model: str) -> None:
    tensor = image(FILES[1]) | {"parameters": None}
    outputs = [{"name": "prediction", "parameters": None}]
    left_out = {"id": None, "parameters": None}
    outputs_of(posted(server, model, [tensor], outputs=outputs, **left_out))
    assert list(outputs_of(posted(server, model, [tensor], outputs=None))) == list(OUTPUTS)


# what is refused


def pixels_of(bundle: Bundle, value: float = 0, **changed: Any) -> tuple[Tensor, bytes]:
    """An image of one grey, as binary data."""
    size = bundle.manifest.input
    data = np.full((size.height, size.width), value, "<f4").tobytes()
    tensor = {
        "name": "pixels",
        "datatype": "FP32",
        "shape": [1, size.height, size.width, 1],
        "parameters": {"binary_data_size": len(data)},
    }
    return tensor | changed, data


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.001, -1.001, 1e38])
def test_values_beyond_the_range_are_refused(
    server: Service, bundle: Bundle, model: str, value: float
) -> None:
    tensor, data = pixels_of(bundle)
    one = data[:-4] + struct.pack("<f", value)
    problem = refused(posted(server, model, [tensor], one), "invalid_tensor")
    assert "-1 to 1" in problem["detail"]


WRONG = {
    "no input": ([], "invalid_tensor"),
    "an input twice": ([image(FILES[1]), image(FILES[1])], "invalid_tensor"),
    "another name": ([image(FILES[1], name="images")], "invalid_tensor"),
    "another datatype": ([image(FILES[1], datatype="FP32")], "invalid_tensor"),
    "no datatype at all": ([image(FILES[1], datatype="no such")], "invalid_tensor"),
    "too many dimensions": ([image(FILES[1], shape=[1, 1])], "invalid_tensor"),
    "none": ([image(FILES[1], shape=[])], "invalid_tensor"),
    "a negative one": ([image(FILES[1], shape=[-1])], "invalid_json"),
    "a huge one": ([image(FILES[1], shape=[2**63 - 1])], "too_many_images"),
    "a larger one": ([image(FILES[1], shape=[2**64])], "invalid_json"),
    "a fraction": ([image(FILES[1], shape=[1.5])], "invalid_json"),
    "fewer elements": ([image(FILES[1], shape=[2])], "invalid_tensor"),
    "more elements": ([image(FILES[1], FILES[1], shape=[1])], "invalid_tensor"),
    "no image": ([image()], "no_file"),
    "too many images": ([image(*[b"x"] * 65)], "too_many_images"),
    "no data": ([image(FILES[1], data=None)], "invalid_tensor"),
    "what is no base64": ([image(FILES[1], data=["*"])], "invalid_tensor"),
    "what is no text": ([image(FILES[1], data=[1])], "invalid_tensor"),
    "lists for text": ([image(FILES[1], data=[["eA=="]])], "invalid_tensor"),
    "text beyond ASCII": ([image(FILES[1], data=["é"])], "invalid_tensor"),
    "both data": (
        [image(FILES[1], parameters={"binary_data_size": 0})], "invalid_tensor",
    ),
    "binary data that is not there": (
        [image(FILES[1], data=None, parameters={"binary_data_size": 8})], "invalid_tensor",
    ),
    "data in shared memory": (
        [image(FILES[1], data=None, parameters={"shared_memory_region": "x"})], "invalid_tensor",
    ),
    "countless inputs": ([image(FILES[1])] * 9, "invalid_json"),
    "no list of inputs": ({"image": 1}, "invalid_json"),
    "pixels of another size": (
        [{"name": "pixels", "datatype": "FP32", "shape": [1, 2, 2, 1], "data": [0] * 4}],
        "invalid_tensor",
    ),
    "what is no image": ([image(b"hello")], "unsupported_format"),
    "a broken image": ([image(FILES[1][:500])], "broken_image"),
}  # fmt: skip


@pytest.mark.parametrize(("inputs", "code"), WRONG.values(), ids=WRONG)
def test_wrong_tensors_are_refused(server: Service, model: str, inputs: Any, code: str) -> None:
    refused(posted(server, model, inputs), code)


@pytest.mark.parametrize(
    "data",
    [
        [0.0], ["0"], [True], [None], [[0.0], [0.0, 0.0]], [{}], [10**400], [],
        json.loads("[" * 60 + "]" * 60),
    ],
    ids=["few", "text", "truth", "nothing", "ragged", "an object", "huge", "empty", "deep"],
)  # fmt: skip
def test_wrong_numbers_are_refused(
    server: Service, bundle: Bundle, model: str, data: list[Any]
) -> None:
    tensor, _ = pixels_of(bundle, parameters={}, data=data)
    refused(posted(server, model, [tensor]), "invalid_tensor")


@pytest.mark.parametrize("other", ["0.5", "x" * 200_000, True, None, {}, [0]])
def test_what_is_no_number_among_numbers_is_refused(
    server: Service, bundle: Bundle, model: str, other: Any
) -> None:
    """A long text among them would need 120 GB in an array."""
    size = bundle.manifest.input
    numbers = [0] * (size.height * size.width - 1)
    tensor, _ = pixels_of(bundle, parameters={}, data=[*numbers, other])
    refused(posted(server, model, [tensor]), "invalid_tensor")


def test_text_in_the_place_of_numbers_is_refused(
    server: Service, bundle: Bundle, model: str
) -> None:
    size = bundle.manifest.input
    tensor, _ = pixels_of(bundle, parameters={}, data=["0.5"] * (size.height * size.width))
    refused(posted(server, model, [tensor]), "invalid_tensor")


def test_of_several_images_the_one_that_is_wrong_is_named(server: Service, model: str) -> None:
    problem = refused(posted(server, model, [image(FILES[1], b"hello")]), "unsupported_format")
    assert problem["detail"].startswith("Image 1: ")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"outputs": [{"name": "no such"}]}, "invalid_tensor"),
        ({"outputs": [{"name": "heatmap"}] * 2}, "invalid_tensor"),
        ({"outputs": [{"name": "heatmap", "parameters": {"classification": 2}}]}, "invalid_json"),
        ({"outputs": "heatmap"}, "invalid_json"),
        ({"parameters": {"operating_point": "no such"}}, "unknown_operating_point"),
        ({"parameters": {"target": "no such"}}, "unknown_class"),
        ({"parameters": {"gate": "open"}}, "invalid_json"),
        ({"parameters": {"binary_data_output": "yes"}}, "invalid_json"),
        ({"parameters": []}, "invalid_json"),
        ({"outputs": [{"name": "heatmap"}] * 17}, "invalid_json"),
        ({"id": 42}, "invalid_json"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    server: Service, model: str, asked: dict[str, Any], code: str
) -> None:
    refused(posted(server, model, [image(FILES[1])], **asked), code)


LIES = {
    "more than there is": "99999999",
    "less than the JSON": "5",
    "no number": "many",
    "negative": "-1",
    "countless digits": "9" * 5000,
    "nothing of it": "0",
    "other digits": "٣",
}


@pytest.mark.parametrize("length", LIES.values(), ids=LIES)
def test_a_length_of_the_json_that_is_a_lie_is_refused(
    server: Service, bundle: Bundle, model: str, length: str
) -> None:
    tensor, data = pixels_of(bundle)
    text = json.dumps({"inputs": [tensor]}).encode()
    answer = server.post(
        f"/v2/models/{model}/infer",
        content=text + data,
        headers=[(b"Inference-Header-Content-Length", length.encode())],
    )
    refused(answer, "invalid_request" if length not in ("5", "0") else "invalid_json")


@pytest.mark.parametrize(
    ("size", "behind"),
    [
        (10, b"\x02\0\0\0ab"), (6, b"\x02\0\0\0abc"), (6, b"\x09\0\0\0ab"), (3, b"\x02\0\0"),
        (12, b"\x02\0\0\0ab\x02\0\0\0ab"), (4000, b"\0\0\0\0" * 1000), (0, b"x"), (-1, b"x"),
        (4, b"\xff\xff\xff\xff"),
    ],
)  # fmt: skip
def test_binary_data_that_is_not_what_it_says_is_refused(
    server: Service, model: str, size: int, behind: bytes
) -> None:
    tensor = image(FILES[1], data=None, parameters={"binary_data_size": size})
    code = "invalid_json" if size < 0 else "invalid_tensor"
    refused(posted(server, model, [tensor], behind), code)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"inputs":' + b"[" * 100_000,
        b'{"inputs": [{"name": "pixels", "data": ' + b"[" * 1000 + b"]" * 1000 + b"}]}",
        b'{"a":' * 100_000, png(breast()),
    ],
    ids=["empty", "cut", "null", "a list", "no UTF-8", "deep", "deep inputs", "deep data",
         "deep objects", "an image"],
)  # fmt: skip
def test_what_is_no_request_is_refused(server: Service, model: str, text: bytes) -> None:
    refused(server.post(f"/v2/models/{model}/infer", content=text), "invalid_json")


def test_more_numbers_in_json_than_a_few_images_have_are_refused_unparsed(
    server: Service, bundle: Bundle, model: str
) -> None:
    """Parsed, each would take many times its two bytes."""
    tensor, _ = pixels_of(bundle, parameters={}, data=[0] * 2_000_000)
    problem = refused(posted(server, model, [tensor]), "invalid_tensor")
    assert "binary data" in problem["detail"]


@pytest.mark.parametrize("nested", [True, False])
def test_as_many_images_as_documented_may_be_numbers_in_json(
    server: Service, bundle: Bundle, model: str, *, nested: bool
) -> None:
    (stated,) = re.findall(r"At most (\d+) images may be sent as numbers in JSON", PAGE)
    size = bundle.manifest.input

    def sent(images: int) -> httpx.Response:
        pixels = np.zeros((images, size.height, size.width, 1), int)
        data = pixels.tolist() if nested else pixels.ravel().tolist()
        tensor, _ = pixels_of(bundle, shape=list(pixels.shape), parameters={}, data=data)
        return posted(server, model, [tensor], parameters={"gate": "warn"})

    outputs_of(sent(int(stated)))
    assert "binary data" in refused(sent(int(stated) + 1), "invalid_tensor")["detail"]


def test_a_body_that_is_packed_is_refused(server: Service, model: str) -> None:
    answer = posted(server, model, [image(FILES[1])], headers={"Content-Encoding": "gzip"})
    refused(answer, "invalid_request")


def test_another_model_is_refused_before_the_body_comes(server: Service, model: str) -> None:
    others = ("no-such/infer", f"{model}/versions/9.9.9/infer", "%7Bname%7D/infer", "a%0Ab/infer")
    for path in others:
        refused(server.post(f"/v2/models/{path}", content=b""), "unknown_model")
    refused(server.get(f"/v2/models/{model}/config"), "not_found")
    assert server.get(f"/v2/models/{model}/infer").headers["allow"] == "POST"


def test_a_deadline_holds(server: Service, model: str) -> None:
    answer = posted(server, model, [image(*FILES * 8)], headers={"X-Deadline-Ms": "1"})
    assert answer.json()["code"] in ("deadline_exceeded", "overloaded")


def test_the_client_shows_code_and_reason(client: triton.InferenceServerClient, model: str) -> None:
    with pytest.raises(InferenceServerException) as refusal:
        client.infer(model, [files_input([FILES[1][:500]])])
    assert refusal.value.status() == "422"
    assert refusal.value.message().startswith("broken_image: ")
    with pytest.raises(InferenceServerException, match="unknown_model: "):
        client.get_model_metadata("no-such-model")


# who asks, and what is kept of it


@pytest.fixture(scope="module")
def guarded(
    bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, dict[str, str], Path]]:
    """With keys for ``predict`` and for ``read``, and an audit log."""
    folder = tmp_path_factory.mktemp("infer")
    keys = {scope: new_key() for scope in ("predict", "read")}
    lines = " ".join(f"{scope}:{hash_of(key)}:{scope}" for scope, key in keys.items())
    log = folder / "audit.jsonl"
    with serving(bundle_folder, folder, api_keys=lines, audit_file=log, rate_limit=60) as service:
        yield service, keys, log


def test_inferring_needs_the_scope_predict_and_metadata_read(
    guarded: tuple[Service, dict[str, str], Path], model: str
) -> None:
    service, keys, _ = guarded
    found = {}
    with triton.InferenceServerClient(service.client.base_url.netloc.decode()) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        for scope, key in keys.items():
            bearer = {"Authorization": f"Bearer {key}"}
            for name, ask in {
                "infer": lambda: client.infer(model, [files_input(FILES[:1])], headers=bearer),  # noqa: B023
                "metadata": lambda: client.get_model_metadata(model, headers=bearer),  # noqa: B023
            }.items():
                try:
                    ask()
                    found[scope, name] = "200"
                except InferenceServerException as refusal:
                    found[scope, name] = refusal.message().partition(":")[0]
        with pytest.raises(InferenceServerException, match="login_required"):
            client.infer(model, [files_input(FILES[:1])])
    assert found == {
        ("predict", "infer"): "200", ("predict", "metadata"): "forbidden",
        ("read", "infer"): "forbidden", ("read", "metadata"): "200",
    }  # fmt: skip


def test_each_image_is_recorded_with_its_hash_and_result(
    guarded: tuple[Service, dict[str, str], Path], model: str
) -> None:
    service, keys, log = guarded
    bearer = {"Authorization": f"Bearer {keys['predict']}"}
    parameters = {"operating_point": "sensitivity-90", "laterality": "R"}
    answer = posted(service, model, [image(*FILES)], headers=bearer, parameters=parameters)
    found = outputs_of(answer)
    record = json.loads(log.read_bytes().splitlines()[-1])
    assert record["request_id"] == answer.json()["parameters"]["request_id"]
    assert record["who"] == {"name": "predict", "kind": "key"}
    assert record["route"] == f"/v2/models/{model}/infer"
    assert record["images"] == [hashlib.sha256(data).hexdigest() for data in FILES]
    assert record["operating_point"]["name"] == "sensitivity-90"
    assert [one["laterality"] for one in record["breasts"]] == ["L", "R", "R"]
    probabilities = [np.float32(one["calibrated_probability"]) for one in record["breasts"]]
    assert probabilities == list(np.float32(found["calibrated_probability"]["data"]))


def test_pixels_are_recorded_by_the_hash_of_their_bytes(
    guarded: tuple[Service, dict[str, str], Path], bundle: Bundle, model: str
) -> None:
    service, keys, log = guarded
    bearer = {"Authorization": f"Bearer {keys['predict']}"}
    tensor, data = pixels_of(bundle)
    answer = posted(service, model, [tensor], data, headers=bearer, parameters={"gate": "warn"})
    assert answer.status_code == 200
    record = json.loads(log.read_bytes().splitlines()[-1])
    assert record["images"] == [hashlib.sha256(data).hexdigest()]


def test_metrics_count_requests_by_the_pattern_of_the_address_and_scores_by_image(
    server: Service, model: str
) -> None:
    scores = "mammoseq_calibrated_probability_ratio_count"
    before = server.metric(INFERRED), server.metric(scores)
    outputs_of(posted(server, model, [image(*FILES)]))
    assert (server.metric(INFERRED), server.metric(scores)) == (before[0] + 1, before[1] + 3)


def test_names_in_a_file_are_nowhere_in_the_answer(server: Service, model: str) -> None:
    named = dicom(breast(), PatientName="MARKER^NAME", PatientID="MARKER-ID")
    assert "MARKER" not in posted(server, model, [image(named)]).text


# what docs/open-inference.md says

PAGE = (REPOSITORY / "docs" / "open-inference.md").read_text()
CODE = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def example(language: str) -> str:
    (text,) = [code for kind, code in CODE if kind == language]
    return text


def ran(server: Service, *command: str) -> str:
    """What an example prints that is for port 8000."""
    address = server.client.base_url.netloc.decode()
    here = [part.replace("127.0.0.1:8000", address) for part in command]
    done = subprocess.run(here, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_documented_request_gets_the_documented_answer(server: Service) -> None:
    found = json.loads(ran(server, "bash", "-euo", "pipefail", "-c", example("sh")))
    told = json.loads(example("json"))
    for answer in (found, told):
        answer["parameters"].pop("request_id")
    (probability,) = found["outputs"][0]["data"]
    assert told["outputs"][0].pop("data") == [pytest.approx(probability, abs=1e-4)]
    found["outputs"][0].pop("data")
    assert found == told


def test_the_documented_client_prints_its_results(server: Service) -> None:
    printed = ran(server, sys.executable, "-c", example("python")).splitlines()
    assert re.fullmatch(r"\[0\.24\d+ 0\.24\d+\]", printed[0])
    assert printed[1:] == ["(2, 16, 10)", DISCLAIMER]


def test_every_output_and_address_is_documented(server: Service) -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `\[n", PAGE, re.MULTILINE)
    assert dict(rows) == {"image": "BYTES", "pixels": "FP32"} | OUTPUTS
    paths = [path for path in server.get("/openapi.json").json()["paths"] if path[:3] == "/v2"]
    assert len(paths) == 9
    for path in paths:
        end = path.replace("/v2/models/{name}", "...") if "versions" in path else path
        assert f"{end}`" in PAGE, path
