"""int8 and fp16: what is shipped was measured against fp32, and the bundle says so."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from app.bundle import ENCODER, Bundle, load_bundle
from app.imaging.preprocess import to_tensor
from app.inference.sessions import Sessions
from export import reduced
from export.__main__ import main
from export.bundle import export
from export.half import halve
from export.quantise import quantise
from export.reduced import BOUNDS, Bounds, correlation, measure, reduce_bundle
from export.verify import VerificationError
from tests.export.test_export import everything_under, write_run
from tests.training.hybrids import SIDE, small_hybrid

COUNT = 40


def pictures(count: int = COUNT, seed: int = 2) -> NDArray[np.uint8]:
    """Blocks of grey beside a black background, as a breast would be."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
    coarse[:, :, 5:] = 0
    return np.repeat(np.repeat(coarse, SIDE // 8, axis=1), SIDE // 8, axis=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", small_hybrid())
    np.savez(folder / "calibration.npz", pixels=pictures())
    return folder


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(run, tmp_path_factory.mktemp("store") / "tiny" / "1.0.0")


@pytest.fixture(scope="module", params=["int8", "fp16"])
def smaller(
    request: pytest.FixtureRequest, run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    return export(run, tmp_path_factory.mktemp("store") / "tiny" / "1.0.1", request.param)


def sessions_of(bundle: Bundle) -> Sessions:
    return Sessions(bundle.encoder, bundle.head, device="cpu")


def operators(graph: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


def test_fp32_is_what_a_bundle_is_unless_it_says_otherwise(whole: Bundle, bundle: Bundle) -> None:
    assert whole.manifest.precision == "fp32"
    assert bundle.manifest.precision == "fp32"
    assert "reduced" not in whole.manifest.verification
    card = (whole.folder / "MODEL_CARD.md").read_text()
    assert card.count("## Precision") == 1
    assert "fp32: the encoder calculates as it was trained" in card


def test_reduced_encoder_is_smaller(whole: Bundle, smaller: Bundle) -> None:
    assert len(smaller.encoder) < 0.6 * len(whole.encoder)


def test_manifest_and_card_say_what_it_costs(smaller: Bundle) -> None:
    manifest = load_bundle(smaller.folder).manifest
    cost = manifest.verification["reduced"]
    bounds = BOUNDS[manifest.precision]
    assert cost["images"] == 12
    assert 0 < cost["probability_mean"] <= bounds.probability_mean
    assert cost["probability_mean"] <= cost["probability_largest"]
    assert bounds.heatmap_worst <= cost["heatmap_worst"] <= cost["heatmap_mean"] < 1
    assert manifest.verification["probability"] <= 1e-4, "fp32 was verified against Keras before"
    card = (smaller.folder / "MODEL_CARD.md").read_text()
    assert card.count("## Precision") == 1
    assert f"{manifest.precision}: the encoder was reduced" in card
    assert f"{cost['heatmap_worst']:.3f} at worst" in card


def test_cost_in_the_manifest_is_that_of_the_files(
    run: Path, whole: Bundle, smaller: Bundle
) -> None:
    with np.load(run / "verification.npz") as stored:
        found = measure(sessions_of(whole), sessions_of(smaller), stored["pixels"], 1)
    cost = smaller.manifest.verification["reduced"]
    assert found.probability_largest == pytest.approx(cost["probability_largest"], rel=1e-3)
    assert found.heatmap_worst == pytest.approx(cost["heatmap_worst"], rel=1e-3)


def test_outputs_are_single_precision_whatever_the_encoder_is(smaller: Bundle) -> None:
    features = sessions_of(smaller).encode(to_tensor(pictures(3)))
    assert features.maps.dtype == features.pooled.dtype == np.float32
    np.testing.assert_allclose(features.pooled, features.maps.mean(axis=(1, 2)), rtol=1e-4)


def test_int8_leaves_the_first_convolution_and_what_follows_the_last_map(whole: Bundle) -> None:
    graph = onnx.load_from_string(quantise(whole.encoder, pictures())).graph
    origin = {name: node.op_type for node in graph.node for name in node.output}
    first, *others = [node for node in graph.node if node.op_type == "Conv"]
    assert origin.get(first.input[1]) is None
    assert all(origin[node.input[1]] == "DequantizeLinear" for node in others)
    (cube,) = [node for node in graph.node if node.op_type == "Pow"]
    (mean,) = [node for node in graph.node if node.op_type == "ReduceMean"]
    assert cube.output[0] == mean.input[0] == "maps"
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kinds = {weights[n.input[0]].data_type for n in graph.node if n.input[0] in weights}
    assert onnx.TensorProto.INT8 in kinds


def test_int8_keeps_the_mean_of_every_pooled_feature(whole: Bundle) -> None:
    """What a correction of the biases is for; without it some would be off."""
    eight_bit = Sessions(quantise(whole.encoder, pictures()), whole.head, device="cpu")
    images = to_tensor(pictures())
    wanted = sessions_of(whole).encode(images).pooled
    found = eight_bit.encode(images).pooled
    scale = wanted.mean(axis=0).max()
    assert np.abs(found.mean(axis=0) - wanted.mean(axis=0)).max() < 0.03 * scale
    assert np.abs(found - wanted).max() > 0


def test_fp16_holds_half_precision_weights_and_no_cube_in_them(whole: Bundle) -> None:
    graph = onnx.load_from_string(halve(whole.encoder)).graph
    kinds = Counter(tensor.data_type for tensor in graph.initializer if tensor.dims)
    assert kinds[onnx.TensorProto.FLOAT16] > 4
    assert operators(halve(whole.encoder))["Cast"] >= 2
    features = Sessions(halve(whole.encoder), whole.head, device="cpu").encode(
        to_tensor(pictures(2))
    )
    assert not np.array_equal(features.maps.astype(np.float16).astype(np.float32), features.maps)


# reducing a bundle that exists


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, pixels=pictures())
    return path


def test_bundle_is_reduced_without_the_run_it_came_from(
    whole: Bundle, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "store" / "tiny-int8" / "1.0.0"
    arguments = ["--bundle", str(whole.folder), "--calibration", str(images), "--to", str(target)]
    assert main([*arguments, "--precision", "int8"]) == 0
    assert "int8 against fp32 on 5 images" in capsys.readouterr().out
    made = load_bundle(target).manifest
    assert (made.name, made.version, made.precision) == ("tiny-int8", "1.0.0", "int8")
    assert made.verification["reduced"]["calibration_images"] == COUNT - 5
    assert load_bundle(target).head == whole.head
    assert made.operating_points == whole.manifest.operating_points
    card = (target / "MODEL_CARD.md").read_text()
    assert card.startswith("# tiny-int8 1.0.0\n")
    assert "int8: the encoder was reduced" in card
    assert "fp32: the encoder calculates" not in card
    assert set(made.files) == set(whole.manifest.files)


def test_what_was_reduced_is_not_reduced_again(
    smaller: Bundle, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="already"):
        reduce_bundle(smaller.folder, tmp_path / "store" / "tiny" / "2.0.0", "int8", images)


# what must fail


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "r", "--bundle", "b"], "not allowed with"),
        (["--bundle", "b", "--precision", "int8"], "needs one of"),
        (["--bundle", "b", "--calibration", "i"], "fp32 already"),
        (["--model", "r", "--calibration", "i"], "goes with --bundle"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*options, "--to", "store/tiny/1.0.0"])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bounds", "said"), [(Bounds(0.0, -1.0), "differs by"), (Bounds(1.0, 1.01), "correlates by")]
)
def test_reduced_encoder_out_of_bounds_is_refused_and_leaves_nothing(
    whole: Bundle,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bounds: Bounds,
    said: str,
) -> None:
    monkeypatch.setitem(reduced.BOUNDS, "fp16", bounds)
    with pytest.raises(VerificationError, match=said):
        reduce_bundle(whole.folder, tmp_path / "store" / "tiny" / "1.0.0", "fp16", images)
    assert everything_under(tmp_path / "store") == {}


def test_encoder_that_answers_nothing_is_out_of_bounds(whole: Bundle) -> None:
    """A graph of zeros differs in every heatmap, however well its probabilities lie."""
    graph = onnx.load_from_string(whole.encoder)
    for tensor in graph.graph.initializer:
        if len(tensor.dims) == 4:
            zeros = np.zeros(tuple(tensor.dims), np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))
    silent = Sessions(graph.SerializeToString(), whole.head, device="cpu")
    found = measure(sessions_of(whole), silent, pictures(4), 1)
    assert found.heatmap_worst < BOUNDS["int8"].heatmap_worst


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (None, "images.npz is missing"),
        ({"pixels": pictures(8)}, "at least 32 images"),
        ({"images": pictures()}, "does not hold pixels"),
        ({"pixels": pictures().astype(np.float32)}, "does not hold pixels"),
        ({"pixels": pictures()[:, :32]}, "the encoder needs"),
    ],
)
def test_images_that_cannot_be_calibrated_on_are_refused(
    whole: Bundle,
    tmp_path: Path,
    stored: dict[str, Any] | None,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = tmp_path / "images.npz"
    if stored is not None:
        np.savez(images, **stored)
    target = tmp_path / "store" / "tiny" / "1.0.0"
    arguments = ["--bundle", str(whole.folder), "--calibration", str(images), "--to", str(target)]
    assert main([*arguments, "--precision", "int8"]) == 1
    assert said in capsys.readouterr().err
    assert everything_under(tmp_path / "store") == {}


def test_run_without_images_to_calibrate_on_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.keras").write_bytes(b"not read")
    target = tmp_path / "store" / "tiny" / "1.0.0"
    assert main(["--model", str(run), "--precision", "int8", "--to", str(target)]) == 1
    assert "calibration.npz is missing" in capsys.readouterr().err


def test_manifest_of_an_unknown_precision_is_not_valid(whole: Bundle) -> None:
    text = json.dumps({**json.loads((whole.folder / "manifest.json").read_text())})
    with pytest.raises(ValueError, match="precision"):
        type(whole.manifest).model_validate_json(text.replace('"fp32"', '"int4"'))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (np.eye(3), 1.0),
        (2 * np.eye(3) + 1, 1.0),
        (-np.eye(3), -1.0),
        (np.zeros((3, 3)), 0.0),
    ],
)
def test_correlation_of_maps(other: NDArray[Any], expected: float) -> None:
    assert correlation(np.eye(3), other) == pytest.approx(expected)
    assert correlation(np.zeros((3, 3)), np.ones((3, 3))) == 1.0


def test_every_bundle_of_the_tests_is_on_disk(smaller: Bundle) -> None:
    assert (smaller.folder / ENCODER).read_bytes() == smaller.encoder
