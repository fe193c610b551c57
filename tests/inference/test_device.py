"""The device: what counts as running on the GPU, runs with bound memory, and a device that fails.

No GPU is needed: memory is bound on the CPU, and where a device must fail, a real session does
whose graph cannot be run.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from app.bundle import Bundle
from app.inference import cuda
from app.inference.bound import BATCH_SIZES, BoundRuns
from app.inference.sessions import DeviceError, Sessions, check_working
from app.machine import has_gpu
from app.problems import Refusal

ROWS, COLUMNS = 4, 3
GPU, CPU = cuda.PROVIDER, "CPUExecutionProvider"


def encoder_that_fails_above(limit: int) -> bytes:
    """A graph with the encoder's names whose maps are twice the images. It fails on a batch that
    holds a value above ``limit``, at ``Gather``: its table has no such entry."""
    shape = [None, ROWS, COLUMNS, 1]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["images"], ["largest"], keepdims=0),
            helper.make_node("Cast", ["largest"], ["entry"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "entry"], ["two"]),
            helper.make_node("Mul", ["images", "two"], ["maps"]),
            helper.make_node("ReduceMean", ["maps", "axes"], ["pooled"], keepdims=0),
        ],
        "encoder",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [None, 1]),
        ],
        [
            helper.make_tensor("table", TensorProto.FLOAT, [limit + 1], [2.0] * (limit + 1)),
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def session_of(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # it is meant to fail
    options.add_session_config_entry(cuda.RECORD_ASSIGNMENT, "1")
    return ort.InferenceSession(graph, options, providers=[CPU])


def images(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)[:, None, None, None] * np.ones((1, ROWS, COLUMNS, 1), "f4")


# what runs on the GPU


@pytest.mark.parametrize(
    "assigned",
    [
        [(GPU, "Conv")],
        [(GPU, "Conv")] * 9 + [(CPU, "Shape")],
    ],
)
def test_encoder_on_the_gpu_but_for_bookkeeping_is_accepted(
    assigned: list[tuple[str, str]],
) -> None:
    assert cuda.fault_of(assigned) is None


@pytest.mark.parametrize(
    ("assigned", "told"),
    [
        ([], "0 of the encoder's 0 nodes"),
        ([(CPU, "Conv")] * 3, "3 of the encoder's 3 nodes are not on the GPU: 3 Conv"),
        ([(GPU, "Clip")] * 99 + [(CPU, "FusedConv")], "1 FusedConv"),
        ([(GPU, "Conv")] * 99 + [(CPU, "MatMul")], "1 MatMul"),
        ([(GPU, "Conv")] * 8 + [(CPU, "Pow")] * 2, "2 of the encoder's 10 nodes"),
    ],
)
def test_encoder_that_is_not_on_the_gpu_is_told(assigned: list[tuple[str, str]], told: str) -> None:
    assert told in (cuda.fault_of(assigned) or "")


def test_every_node_of_a_real_session_is_assigned(bundle: Bundle) -> None:
    assigned = cuda.assignments(session_of(bundle.encoder))
    assert {provider for provider, _ in assigned} == {CPU}
    assert sum(operator == "Conv" for _, operator in assigned) > 40
    assert cuda.fault_of(assigned)


def test_gpu_that_cannot_be_used_is_left_alone_unless_it_was_asked_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if has_gpu():
        pytest.skip("there is a GPU")
    monkeypatch.setattr("app.inference.sessions.has_gpu", lambda: True)
    sessions = Sessions(bundle.encoder, bundle.head, device="auto")
    assert (sessions.device, sessions.provider) == ("cpu", CPU)
    assert "nodes are not on the GPU" in caplog.text
    with pytest.raises(DeviceError, match="nodes are not on the GPU"):
        Sessions(bundle.encoder, bundle.head, device="cuda")


# bound memory


@pytest.fixture(scope="module")
def bound() -> BoundRuns:
    return BoundRuns(session_of(encoder_that_fails_above(1000)), ("maps", "pooled"), "cpu")


@pytest.mark.parametrize("count", [1, 2, 3, 5, 31, 32, 33, 70])
def test_bound_runs_answer_as_many_images_as_were_sent(bound: BoundRuns, count: int) -> None:
    sent = images(*range(1, count + 1))
    maps, pooled = bound.run(sent)
    np.testing.assert_array_equal(maps, sent * 2)
    np.testing.assert_allclose(pooled[:, 0], 2.0 * np.arange(1, count + 1), rtol=1e-6)


def test_answers_of_bound_runs_outlive_the_next_run(bound: BoundRuns) -> None:
    first, _ = bound.run(images(1, 2, 3))
    bound.run(images(7, 8, 9))
    np.testing.assert_array_equal(first, images(2, 4, 6))


def test_bound_runs_of_many_threads_are_not_mixed_up(bound: BoundRuns) -> None:
    def right(number: int) -> bool:
        sent = images(*range(number, number + number % 9 + 1))
        return bool((bound.run(sent)[0] == sent * 2).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, range(1, 400)))


def test_bound_runs_work_on_after_a_batch_that_failed() -> None:
    bound = BoundRuns(session_of(encoder_that_fails_above(5)), ("maps", "pooled"), "cpu")
    bound.warm_up()
    with pytest.raises(Exception, match="Gather"):
        bound.run(images(1, 99))
    np.testing.assert_array_equal(bound.run(images(1, 2))[0], images(2, 4))


@pytest.mark.parametrize("count", [1, 3, *BATCH_SIZES[3:4]])
def test_bound_runs_of_the_shipped_encoder_give_what_plain_runs_give(
    bundle: Bundle, count: int
) -> None:
    session = session_of(bundle.encoder)
    size = bundle.manifest.input
    sent = np.random.default_rng(count).uniform(-1, 1, (count, size.height, size.width, 1))
    wanted = session.run(["maps", "pooled"], {"images": sent.astype(np.float32)})
    found = BoundRuns(session, ("maps", "pooled"), "cpu").run(sent.astype(np.float32))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


# a device that fails


def test_batch_that_cannot_be_encoded_is_an_error_of_that_batch(bundle: Bundle) -> None:
    sessions = Sessions(encoder_that_fails_above(5), bundle.head, device="cpu")
    with pytest.raises(Exception, match="Gather") as caught:
        sessions.encode(images(99))
    assert not isinstance(caught.value, Refusal)
    check_working(sessions)
    np.testing.assert_array_equal(sessions.encode(images(3)).maps, images(6))


def test_device_that_encodes_nothing_any_more_has_failed_for_good(bundle: Bundle) -> None:
    sessions = Sessions(encoder_that_fails_above(5), bundle.head, device="cpu")
    working = sessions._encoder
    sessions._encoder = session_of(encoder_that_fails_above(-1))
    for attempt in (1, 2):
        with pytest.raises(Refusal) as caught:
            sessions.encode(images(attempt))
        assert caught.value.code == "not_ready"
    with pytest.raises(Refusal):
        check_working(sessions)
    sessions._encoder = working  # what a context has lost does not come back
    with pytest.raises(Refusal):
        sessions.encode(images(1))


def test_failure_of_bound_runs_is_noticed_too(bundle: Bundle) -> None:
    sessions = Sessions(encoder_that_fails_above(5), bundle.head, device="cpu")
    outputs = ("maps", "pooled")
    sessions._bound = BoundRuns(session_of(encoder_that_fails_above(5)), outputs, "cpu")
    np.testing.assert_array_equal(sessions.encode(images(1, 2, 3)).maps, images(2, 4, 6))
    sessions._bound = BoundRuns(session_of(encoder_that_fails_above(-1)), outputs, "cpu")
    with pytest.raises(Refusal):
        sessions.encode(images(1))
    assert sessions.failed


def test_no_session_goes_on_elsewhere_after_an_error_of_its_device(bundle: Bundle) -> None:
    sessions = Sessions(bundle.encoder, bundle.head, device="cpu")
    assert not sessions._encoder._enable_fallback
