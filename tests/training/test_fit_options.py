"""What a fit can be asked for, beside the run of ``test_fit``: other models, other stops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.test_hybrid import series
from training.config import ModelConfig, OptimiserConfig
from training.fit import Progress, build, is_done, learning_rate
from training.run_folder import RunError
from training.series import pack

SMALL = {"encoder": "paper", "height": 64, "width": 64, "features": 8, "lstm_units": 6}


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)


@pytest.mark.parametrize("architecture", ["hybrid", "cnn_only", "rnn_only"])
def test_every_architecture_reads_series(architecture: str) -> None:
    model = build(ModelConfig(**SMALL, architecture=architecture), classes=3)
    inputs, _ = pack([series(images(), (0,), (1, 2), days=(0, 400))])
    logits = np.asarray(model(inputs))
    assert logits.shape == (1, 3)
    assert np.isfinite(logits).all()


def test_cnn_only_reads_the_last_exam_and_nothing_else() -> None:
    model = build(ModelConfig(**SMALL, architecture="cnn_only"), classes=2)
    both, _ = pack([series(images(), (0,), (1,), days=(0, 400))])
    last, _ = pack([series(images(), (1,), days=(0,))])
    np.testing.assert_allclose(np.asarray(model(both)), np.asarray(model(last)), atol=1e-5)


@pytest.mark.parametrize(("blocks", "rows"), [(2, 16), (3, 8), (5, 2)])
def test_depth_of_the_cnn_is_what_was_asked_for(blocks: int, rows: int) -> None:
    model = build(ModelConfig(**SMALL, blocks=blocks), classes=2)
    assert model.encoder.output_shape[1] == rows


def test_depth_of_the_lstm_is_what_was_asked_for() -> None:
    model = build(ModelConfig(**SMALL, lstm_layers=3), classes=2)
    assert [lstm.units for lstm in model.lstms] == [6, 6, 6]
    inputs, _ = pack([series(images(), (0,), (1,), days=(0, 400))])
    assert np.isfinite(np.asarray(model(inputs))).all()


def test_fit_starts_from_the_weights_of_another(tmp_path: Path) -> None:
    first = build(ModelConfig(**SMALL), classes=2)
    first.save(tmp_path / "best-image.keras")
    second = build(ModelConfig(**SMALL, start_from=tmp_path), classes=2)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_start_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"best-image\.keras is missing"):
        build(ModelConfig(**SMALL, start_from=tmp_path), classes=2)
    build(ModelConfig(**SMALL), classes=3).save(tmp_path / "best-image.keras")
    with pytest.raises(RunError, match="of another shape"):
        build(ModelConfig(**SMALL, start_from=tmp_path), classes=2)


def test_patience_stops_a_fit_that_has_stopped_to_get_better() -> None:
    options = OptimiserConfig(epochs=20, patience=3, head_epochs=1)
    assert not is_done(Progress(epoch=4, best_epoch=2), options)
    assert is_done(Progress(epoch=5, best_epoch=2), options)
    assert not is_done(Progress(epoch=15, best_epoch=2), OptimiserConfig(epochs=20))
    assert is_done(Progress(epoch=20, best_epoch=20), OptimiserConfig(epochs=20))


def test_learning_rate_is_flat_for_the_head_then_warms_up_and_falls() -> None:
    options = OptimiserConfig(epochs=10, head_epochs=1, warmup_epochs=1, learning_rate=1e-4)
    assert learning_rate(options, 0.5) == options.head_learning_rate
    rates = [learning_rate(options, e) for e in (1.25, 1.75, 2.0, 5.0, 9.9)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1e-4)
    assert rates[2] > rates[3] > rates[4] > 0
