"""``python -m training <verb>``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tomllib import TOMLDecodeError

from pydantic import ValidationError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    fit = verbs.add_parser("fit", help="train, or resume, the run that a config names")
    fit.add_argument("--config", type=Path, required=True)
    rsna = verbs.add_parser("rsna-manifest", help="write the manifest of an RSNA subset")
    rsna.add_argument("--source", type=Path, required=True, help="folder with metadata.csv")
    rsna.add_argument("--to", type=Path, required=True)
    chosen = parser.parse_args(arguments)

    from training.manifest import ManifestError

    try:
        if chosen.verb == "rsna-manifest":
            from training.rsna import write_manifest

            print(f"{write_manifest(chosen.source, chosen.to)} images -> {chosen.to}")
        else:
            from training.config import read_config
            from training.fit import fit as run_fit

            print(f"done: {run_fit(read_config(chosen.config))}")
    except (ManifestError, ValidationError, TOMLDecodeError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
