"""``python -m training <verb> --config FILE``: every verb writes one run folder."""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# verb -> module, its config, its function, what it does
VERBS = {
    "inspect": ("inspection", "InspectConfig", "inspect", "look at a data set before training"),
    "simulate": ("simulated_set", "SimulateConfig", "simulate", "make series with known truth"),
    "fit": ("fit", "FitConfig", "fit", "train, or resume, a model"),
    "tune": ("tune", "TuneConfig", "tune", "search hyperparameters"),
    "crossval": ("crossval", "CrossvalConfig", "crossval", "compare models over k folds"),
    "evaluate": ("evaluate", "EvaluateConfig", "evaluate", "measure a bundle as it is served"),
    "calibrate": ("calibrate", "CalibrateConfig", "calibrate", "fit a bundle to a site's data"),
    "compare": ("compare", "CompareConfig", "compare", "size, speed and accuracy of bundles"),
    "explain-check": ("explain_check", "ExplainConfig", "explain_check", "test the heatmaps"),
    "longitudinal": ("longitudinal", "LongitudinalConfig", "longitudinal", "does time matter?"),
    "paper-protocol": ("paper_protocol", "PaperConfig", "paper_protocol", "rerun the paper"),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, (_, _, _, meaning) in VERBS.items():
        verbs.add_parser(verb, help=meaning).add_argument("--config", type=Path, required=True)
    rsna = verbs.add_parser("rsna-manifest", help="write the manifest of an RSNA subset")
    rsna.add_argument("--source", type=Path, required=True, help="folder with metadata.csv")
    rsna.add_argument("--to", type=Path, required=True)
    chosen = parser.parse_args(arguments)

    from app.bundle import BundleError
    from training.manifest import ManifestError
    from training.run_folder import RunError

    try:
        if chosen.verb == "rsna-manifest":
            from training.rsna import write_manifest

            print(f"{write_manifest(chosen.source, chosen.to)} images -> {chosen.to}")
        else:
            print(f"done: {_run(chosen.verb, chosen.config)}")
    except (
        ManifestError, RunError, BundleError, ValidationError, tomllib.TOMLDecodeError,
        FileNotFoundError,
    ) as error:  # fmt: skip
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(verb: str, path: Path) -> Path:
    """Run a verb with its config file; returns the run folder."""
    module_name, config_name, function_name, _ = VERBS[verb]
    # Keras chooses its backend once, when it is imported
    backend = tomllib.loads(path.read_text()).get("backend")
    if isinstance(backend, str):
        os.environ["KERAS_BACKEND"] = backend

    from training.config import read_config

    module = import_module(f"training.{module_name}")
    config = read_config(path, getattr(module, config_name))
    folder: Path = getattr(module, function_name)(config)
    return folder


if __name__ == "__main__":
    sys.exit(main())
