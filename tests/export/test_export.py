"""Keras -> bundle: verified against Keras, complete, or not there at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from app.bundle import ENCODER, HEAD, Bundle, BundleError, find_bundle, load_bundle
from app.imaging.preprocess import PREPROCESSING_VERSION, to_tensor
from app.inference.probability import softmax
from app.inference.sessions import Sessions
from export.__main__ import main
from export.bundle import export
from export.verify import TOLERANCE, VerificationError, verify
from tests.training.hybrids import SIDE, small_hybrid
from training.models.hybrid import Hybrid

CLASSES = {2: ["no_cancer", "malignant"], 3: ["benign", "normal", "malignant"]}


def pictures(count: int) -> NDArray[Any]:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, SIDE // 8, axis=1), SIDE // 8, axis=2)


def write_run(folder: Path, model: Hybrid, images: int = 12) -> Path:
    """A run folder as a finished fit leaves it, with invented figures."""
    estimate = {"value": 0.7, "low": 0.6, "high": 0.8}
    point = {
        "name": "balanced", "threshold": 0.4, "measured_on": "nothing", "sensitivity": 0.7,
        "specificity": 0.6, "sensitivity_interval": [0.6, 0.8], "specificity_interval": [0.5, 0.7],
    }  # fmt: skip
    classes = CLASSES[model.get_config()["classes"]]
    split = {"patients": 1, "breasts": 1, "images": 2, "per_class": dict.fromkeys(classes, 1)}
    folder.mkdir()
    model.save(folder / "best.keras")
    (folder / "metrics.json").write_text(
        json.dumps(
            {
                "auc_per_image": estimate,
                "auc_per_breast": estimate,
                "calibration": {
                    "temperature": 1.5, "brier": estimate, "expected_calibration_error": estimate,
                    "prevalence": 0.3,
                },
                "operating_points": [point],
                "simulated_series": {
                    "series": 8, "auc_whole_series": estimate, "auc_last_exam_alone": estimate,
                    "auc_exams_shuffled": estimate, "auc_without_days": estimate,
                },
            }
        )
    )  # fmt: skip
    (folder / "data.json").write_text(
        json.dumps(
            {
                "classes": classes, "positive_class": "malignant", "fingerprint_sha256": "0" * 64,
                "left_out": {}, "splits": {"train": split, "val": split}, "terms": "made of noise",
            }
        )
    )  # fmt: skip
    np.savez(folder / "verification.npz", pixels=pictures(images))
    for name in ("history.csv", "roc.png", "reliability.png", "history.png"):
        (folder / name).write_bytes(b"stand-in")
    return folder


@pytest.fixture(scope="module", params=[2, 3], ids=["2 classes", "3 classes"])
def model(request: pytest.FixtureRequest) -> Hybrid:
    return small_hybrid(request.param)


@pytest.fixture(scope="module")
def run(model: Hybrid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", model)


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(run, tmp_path_factory.mktemp("store") / "tiny" / "1.2.3")


def test_bundle_is_whole_and_says_what_it_is(exported: Bundle, model: Hybrid) -> None:
    manifest = load_bundle(exported.folder).manifest
    assert (manifest.name, manifest.version) == ("tiny", "1.2.3")
    assert list(manifest.classes) == CLASSES[model.get_config()["classes"]]
    assert manifest.positive_class == "malignant"
    assert (manifest.input.height, manifest.input.width) == (SIDE, SIDE)
    assert (manifest.heatmap.rows, manifest.heatmap.columns) == (4, 4)
    assert manifest.preprocessing.version == PREPROCESSING_VERSION
    assert manifest.temperature == 1.5
    assert manifest.data["fingerprint_sha256"] == "0" * 64
    assert {"keras", "onnx", "tf2onnx", "python"} <= set(manifest.tools)
    assert {"metrics.json", "history.csv", "roc.png", "reliability.png"} <= set(manifest.files)


def test_bundle_was_verified_on_batches_and_series_of_one_to_eight(exported: Bundle) -> None:
    found = exported.manifest.verification
    assert found["cases"] == 16
    assert 0 < found["probability"] <= TOLERANCE
    assert 0 < found["heatmap"] <= TOLERANCE


def test_model_card_says_what_a_reader_must_know(exported: Bundle) -> None:
    card = (exported.folder / "MODEL_CARD.md").read_text()
    assert "not a medical device" in card
    assert "made of noise" in card
    assert "simulated series only" in card
    assert "0.700 [0.600, 0.800]" in card
    for name in exported.manifest.classes:
        assert f"`{name}`" in card


def evaluation(folder: Path, auc: float) -> Path:
    """A run folder as ``training evaluate`` leaves it, with invented figures."""
    wide, narrow = ({"value": 0.6, "low": low, "high": 0.7} for low in (0.4, 0.55))
    groups = [
        {"group": "CC", "cases": 40, "positives": 12, "auc": wide},
        {"group": "MLO", "cases": 50, "positives": 15, "auc": narrow},
        {"group": "AT", "cases": 3, "positives": 1, "auc": None},
    ]
    found = {
        "units": {"breast": {"auc": {"value": auc, "low": 0.5, "high": 0.9}}},
        "subgroups": {"view": {"unit": "image", "groups": groups}},
    }
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(found))
    return folder


def test_card_names_the_subgroups_where_the_model_was_not_better_than_chance(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path / "run", small_hybrid())
    measured = evaluation(tmp_path / "evaluate", auc=0.702)
    bundle = export(run, tmp_path / "store" / "made" / "1.0.0", evaluation=measured)
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    assert "| view MLO | image | 15 of 50 | 0.600 [0.550, 0.700] |" in card
    assert "| view AT | image | 1 of 3 | too few |" in card
    assert "not shown to be better than chance: view CC." in card


def test_evaluation_of_another_model_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", small_hybrid())
    measured = evaluation(tmp_path / "evaluate", auc=0.6)
    with pytest.raises(ValueError, match="not an evaluation of this model"):
        export(run, tmp_path / "store" / "made" / "1.0.0", evaluation=measured)


@pytest.mark.parametrize(
    ("options", "depth"),
    [({"reader": "last"}, 0), ({"reader": "mean"}, 0), ({"lstm_layers": 2}, 2)],
)
def test_baselines_and_deeper_models_are_not_exported(
    tmp_path: Path, options: dict[str, Any], depth: int
) -> None:
    model = small_hybrid(**options)
    assert len(model.lstms) == depth
    run = write_run(tmp_path / "run", model)
    with pytest.raises(ValueError, match="only a hybrid of a CNN and one LSTM layer"):
        export(run, tmp_path / "store" / "made" / "1.0.0")


def test_store_holds_the_version_and_nothing_else(exported: Bundle) -> None:
    assert [path.name for path in exported.folder.parent.iterdir()] == ["1.2.3"]
    assert find_bundle(exported.folder.parents[1], None) == exported.folder


def sessions_of(bundle: Bundle) -> Sessions:
    return Sessions(bundle.encoder, bundle.head, device="cpu")


def test_graphs_answer_what_keras_answers_after_every_exam(exported: Bundle, model: Hybrid) -> None:
    sessions = sessions_of(exported)
    images = to_tensor(pictures(6))
    slots = np.array([[0, 1], [2, -1], [3, 4], [5, -1]], np.int32)
    days = np.array([0, 180, 800, 365], np.float32)
    reading = sessions.read(sessions.encode(images), slots, days)
    pooled = model.pool(model.feature_maps(images))
    expected = np.asarray(model.read_every_exam(pooled, slots[None], days[None]))[0]
    np.testing.assert_allclose(softmax(reading.step_logits), softmax(expected), atol=1e-5)


def test_every_class_has_a_map_of_its_own(exported: Bundle) -> None:
    sessions = sessions_of(exported)
    reading = sessions.read(
        sessions.encode(to_tensor(pictures(1))), np.zeros((1, 1), np.int32), np.zeros(1, np.float32)
    )
    maps = reading.heatmaps[0, 0]
    assert maps.shape == (len(exported.manifest.classes), 4, 4)
    assert maps.max() > 0
    assert np.abs(maps[0] - maps[1]).max() > 1e-4


# what must fail


def _shift(name: str) -> Callable[[Hybrid], None]:
    """Change one weight of a layer by a little."""

    def change(model: Hybrid) -> None:
        holder = model.encoder.get_layer(name) if name.startswith(("conv", "bn")) else None
        layer = holder or (model.lstms[0] if name == "lstm" else getattr(model, name))
        first, *rest = layer.get_weights()
        layer.set_weights([first * 1.05, *rest])

    return change


@pytest.mark.parametrize("layer", ["conv0", "bn3", "pooled_norm", "feature", "lstm", "classifier"])
def test_graphs_of_other_weights_do_not_verify(exported: Bundle, layer: str) -> None:
    changed = small_hybrid(len(exported.manifest.classes))
    _shift(layer)(changed)
    with pytest.raises(VerificationError, match="differs from Keras"):
        verify(changed, sessions_of(exported), pictures(12))


def damaged_head(bundle: Bundle, output: str, factor: float) -> bytes:
    """The head's graph with one output multiplied."""
    graph = onnx.load_from_string(bundle.head)
    for node in graph.graph.node:
        for i, name in enumerate(node.output):
            if name == output:
                node.output[i] = f"{output}_true"
        for i, name in enumerate(node.input):
            if name == output:
                node.input[i] = f"{output}_true"
    graph.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array(factor, np.float32), "damage")
    )
    graph.graph.node.append(onnx.helper.make_node("Mul", [f"{output}_true", "damage"], [output]))
    data: bytes = graph.SerializeToString()
    return data


def test_head_that_was_rewritten_without_damage_verifies(exported: Bundle, model: Hybrid) -> None:
    """Or the test below would prove nothing."""
    whole = Sessions(exported.encoder, damaged_head(exported, "heatmaps", 1.0), device="cpu")
    verify(model, whole, pictures(12))


@pytest.mark.parametrize("output", ["logits", "heatmaps"])
@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_damaged_head_does_not_verify(
    exported: Bundle, model: Hybrid, output: str, factor: float
) -> None:
    """Also where the probabilities are right and the maps alone are wrong."""
    damaged = Sessions(exported.encoder, damaged_head(exported, output, factor), device="cpu")
    with pytest.raises(VerificationError):
        verify(model, damaged, pictures(12))


def test_damaged_encoder_does_not_verify(exported: Bundle, model: Hybrid) -> None:
    graph = onnx.load_from_string(exported.encoder)
    largest = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(largest) * np.float32(1.02)
    largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
    damaged = Sessions(graph.SerializeToString(), exported.head, device="cpu")
    with pytest.raises(VerificationError):
        verify(model, damaged, pictures(12))


def test_few_images_are_enough_to_verify_every_length(exported: Bundle, model: Hybrid) -> None:
    assert verify(model, sessions_of(exported), pictures(3)).cases == 16


def test_verification_on_no_image_at_all_is_none(exported: Bundle, model: Hybrid) -> None:
    with pytest.raises((VerificationError, ValueError)):
        verify(model, sessions_of(exported), pictures(12)[:0])


@pytest.fixture(scope="module")
def two_class_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", small_hybrid(2))


@pytest.fixture(scope="module")
def two_class_bundle(two_class_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(two_class_run, tmp_path_factory.mktemp("store") / "tiny" / "1.2.3")


@pytest.fixture
def copied_run(two_class_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_class_run, tmp_path / "run"))


def everything_under(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_version_that_exists_is_never_overwritten(
    two_class_bundle: Bundle, two_class_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything_under(two_class_bundle.folder.parents[1])
    with pytest.raises(FileExistsError, match="never overwritten"):
        export(two_class_run, two_class_bundle.folder)
    assert main(["--model", str(two_class_run), "--to", str(two_class_bundle.folder)]) == 1
    assert "never overwritten" in capsys.readouterr().err
    assert everything_under(two_class_bundle.folder.parents[1]) == before


@pytest.mark.parametrize(
    "missing", ["best.keras", "data.json", "metrics.json", "verification.npz", "roc.png"]
)
def test_unfinished_run_is_refused_and_leaves_no_half_bundle(
    copied_run: Path, tmp_path: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied_run / missing).unlink()
    store = tmp_path / "store"
    assert main(["--model", str(copied_run), "--to", str(store / "tiny" / "1.0.0")]) == 1
    assert missing in capsys.readouterr().err
    assert everything_under(store) == {}


@pytest.mark.parametrize("target", ["tiny/latest", "Tiny Model/1.0.0", "tiny/1.0"])
def test_name_that_no_bundle_may_have_is_refused_and_leaves_nothing(
    two_class_run: Path, tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert main(["--model", str(two_class_run), "--to", str(store / target)]) == 1
    assert "export failed" in capsys.readouterr().err
    assert everything_under(store) == {}


def test_failed_export_leaves_the_store_as_it_was(
    copied_run: Path, two_class_bundle: Bundle, tmp_path: Path
) -> None:
    """An empty folder of a new name would make two models of one, and the service refuse both."""
    store = tmp_path / "store"
    shutil.copytree(two_class_bundle.folder, store / "tiny" / "1.2.3")
    (copied_run / "roc.png").unlink()
    with pytest.raises(FileNotFoundError):
        export(copied_run, store / "other" / "1.0.0")
    assert find_bundle(store, None) == store / "tiny" / "1.2.3"


def test_export_after_a_failed_one_works(copied_run: Path, tmp_path: Path) -> None:
    target = tmp_path / "store" / "tiny" / "1.0.0"
    history = (copied_run / "history.csv").read_bytes()
    (copied_run / "history.csv").unlink()
    with pytest.raises(FileNotFoundError):
        export(copied_run, target)
    with pytest.raises(BundleError):
        load_bundle(target)
    (copied_run / "history.csv").write_bytes(history)
    assert export(copied_run, target).folder == target


def test_graphs_need_no_training_framework(exported: Bundle) -> None:
    """Only operators of ONNX itself and of ONNX Runtime's own domain."""
    for graph in (exported.encoder, exported.head):
        domains: set[Any] = {node.domain for node in onnx.load_from_string(graph).graph.node}
        assert domains <= {"", "ai.onnx", "com.microsoft"}
    assert (exported.folder / ENCODER).stat().st_size > 0
    assert (exported.folder / HEAD).stat().st_size > 0
