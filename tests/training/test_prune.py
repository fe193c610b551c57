"""Pruning takes away channels and nothing else: what did not matter before is not missed after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.hybrids import SIDE, small_hybrid
from training.models.efficientnet_lite0 import WIDTHS
from training.models.hybrid import Hybrid
from training.prune import MULTIPLE, importance, pruned

SHARE = 0.4


@pytest.fixture(scope="module")
def model() -> Hybrid:
    return small_hybrid(encoder="efficientnet_lite0")


@pytest.fixture(scope="module")
def inputs() -> dict[str, Any]:
    """Four images in two series."""
    rng = np.random.default_rng(3)
    return {
        "images": rng.uniform(-1, 1, (4, SIDE, SIDE, 1)).astype(np.float32),
        "slots": np.array([[[0, 1], [2, -1]], [[3, -1], [-1, -1]]], np.int32),
        "days": np.array([[0, 365], [0, 0]], np.float32),
    }


def outputs(model: Hybrid, inputs: dict[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    maps = np.asarray(model.feature_maps(inputs["images"]))
    return maps, np.asarray(model(inputs, training=False))


def copy_of(model: Hybrid) -> Hybrid:
    copied = Hybrid.from_config(model.get_config())
    copied.build()
    copied.set_weights(model.get_weights())
    return copied


def widths(model: Hybrid) -> list[int]:
    names = [f"block{i}_depthwise" for i in range(1, len(WIDTHS) + 1)]
    return [model.encoder.get_layer(name).output.shape[-1] for name in names]


def test_pruning_nothing_changes_nothing(model: Hybrid, inputs: dict[str, Any]) -> None:
    same = pruned(model, 0)
    assert widths(same) == list(WIDTHS)
    for before, after in zip(outputs(model, inputs), outputs(same, inputs), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("part", ["project", "depthwise"])
def test_channels_whose_weights_are_zero_are_not_missed(
    model: Hybrid, inputs: dict[str, Any], part: str
) -> None:
    """Also where a channel without depthwise weights still adds a constant to every position."""
    idle = copy_of(model)
    rng = np.random.default_rng(4)
    for block, width in enumerate(WIDTHS, start=1):
        layer = idle.encoder.get_layer(f"block{block}_{part}")
        (kernel,) = layer.get_weights()
        kernel[:, :, rng.choice(width, int(0.55 * width), replace=False)] = 0
        layer.set_weights([kernel])
    before, after = outputs(idle, inputs), outputs(pruned(idle, SHARE), inputs)
    assert np.abs(before[0] - outputs(model, inputs)[0]).max() > 1e-3, "nothing was set to zero"
    np.testing.assert_allclose(after[0], before[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(after[1], before[1], atol=1e-4)


def test_channels_that_say_most_stay(model: Hybrid) -> None:
    smaller = pruned(model, SHARE)
    for block in ("block1", "block8", "block15"):
        found = np.sort(importance(model.encoder, block))[::-1]
        left = np.sort(importance(smaller.encoder, block))[::-1]
        np.testing.assert_allclose(left, found[: len(left)], rtol=1e-4)


def test_more_of_the_answer_stays_than_if_the_best_channels_had_gone(
    inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_hybrid(encoder="efficientnet_lite0", seed=1)
    whole, _ = outputs(model, inputs)
    kept, _ = outputs(pruned(model, 0.2), inputs)
    monkeypatch.setattr("training.prune.importance", lambda *of: -importance(*of))
    reversed_, _ = outputs(pruned(model, 0.2), inputs)
    assert np.abs(kept - whole).mean() < np.abs(reversed_ - whole).mean()


@pytest.mark.parametrize("share", [0.1, SHARE, 0.75, 0.999])
def test_widths_are_multiples_of_sixteen_and_weights_become_fewer(
    model: Hybrid, share: float
) -> None:
    smaller = pruned(model, share)
    for before, after in zip(WIDTHS, widths(smaller), strict=True):
        assert after % MULTIPLE == 0
        assert after == pytest.approx((1 - share) * before, abs=MULTIPLE)
        assert after > 0
    assert smaller.count_params() < model.count_params()


def test_shape_of_the_answer_stays(model: Hybrid) -> None:
    smaller = pruned(model, SHARE)
    assert smaller.encoder.output_shape == model.encoder.output_shape
    assert smaller.encoder.input_shape == model.encoder.input_shape


def test_pruned_model_is_saved_and_loaded(
    model: Hybrid, inputs: dict[str, Any], tmp_path: Path
) -> None:
    smaller = pruned(model, SHARE)
    smaller.save(tmp_path / "smaller.keras")
    loaded = keras.models.load_model(tmp_path / "smaller.keras", compile=False)
    np.testing.assert_array_equal(outputs(smaller, inputs)[1], outputs(loaded, inputs)[1])


def test_what_was_pruned_is_pruned_again(model: Hybrid) -> None:
    twice = pruned(pruned(model, 0.5), 0.5)
    assert twice.count_params() < pruned(model, 0.5).count_params()


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_share_that_leaves_nothing_is_refused(model: Hybrid, share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        pruned(model, share)


def test_encoder_without_expanded_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="paper"):
        pruned(small_hybrid(), SHARE)
