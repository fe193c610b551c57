"""A model that was trained with another backend of Keras is exported and verified like any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.bundle import load_bundle
from tests.training.test_fit import REPOSITORY, SECONDS, history, write_config, write_images

# Runs the fit and says which backend did it
_FIT = """
import sys
from training.__main__ import main
code = main(["fit", "--config", sys.argv[1]])
import keras
print("backend", keras.backend.backend())
sys.exit(code)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("KERAS_BACKEND", None)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.long
def test_model_trained_with_jax_is_exported_and_verified_with_tensorflow(tmp_path: Path) -> None:
    config = write_config(tmp_path, "jax", write_images(tmp_path / "images"))
    once = config.read_text().replace("epochs = 2", "epochs = 1")
    config.write_text(f'backend = "jax"\n{once}')
    fitted = run("-c", _FIT, str(config))
    assert fitted.returncode == 0, fitted.stderr
    assert "backend jax" in fitted.stdout
    assert [row["epoch"] for row in history(tmp_path / "jax")] == [1]
    assert json.loads((tmp_path / "jax" / "config.json").read_text())["backend"] == "jax"

    target = tmp_path / "store" / "made" / "0.0.1"
    exported = run("-m", "export", "--model", str(tmp_path / "jax"), "--to", str(target))
    assert exported.returncode == 0, exported.stderr
    assert "verified on" in exported.stdout
    verification = load_bundle(target).manifest.verification
    assert verification["cases"] > 0
