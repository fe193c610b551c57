"""The GPU benchmark where there is none: it says so, and its loops run on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.bundle import load_bundle
from app.inference.sessions import Sessions
from benchmarks import gpu
from tests.conftest import REPOSITORY
from tests.inference.test_device import encoder_that_fails_above, images

STORE = ["--model-store", str(REPOSITORY / "model_store")]


def test_without_cuda_it_says_so_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cuda", *STORE]) == 2
    assert "CUDA was asked for" in capsys.readouterr().err


def test_bare_loops_run_on_the_cpu() -> None:
    rates = gpu.bare_loops(encoder_that_fails_above(5), images(1, 2), "cpu", 0.05)
    assert min(rates.values()) > 0


def test_half_copy_is_a_sealed_bundle_that_reads_nearly_the_same(
    tmp_path: Path,
) -> None:
    store, half = gpu._bundle(gpu._options(["--half", *STORE]), tmp_path)
    assert store == tmp_path
    assert half.manifest.precision == "fp16"
    assert load_bundle(half.folder).sha256 == half.sha256
    whole = load_bundle(REPOSITORY / "model_store" / half.folder.parent.name / half.folder.name)
    size = half.manifest.input
    image = np.random.default_rng(1).uniform(-1, 1, (1, size.height, size.width, 1)).astype("f4")
    found, wanted = (
        Sessions(bundle.encoder, bundle.head, device="cpu").encode(image).pooled
        for bundle in (half, whole)
    )
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
