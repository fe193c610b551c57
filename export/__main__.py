"""``python -m export --model runs/NAME --to model_store/NAME/VERSION``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="run folder of a finished fit")
    parser.add_argument("--to", type=Path, required=True, help="model_store/<name>/<version>")
    chosen = parser.parse_args(arguments)

    from export.bundle import export
    from export.verify import VerificationError

    try:
        bundle = export(chosen.model, chosen.to)
    except (VerificationError, FileExistsError, FileNotFoundError, ValueError) as error:
        print(f"export failed: {error}", file=sys.stderr)
        return 1
    found = bundle.manifest.verification
    print(
        f"{bundle.folder}: verified on {found['cases']} series, largest difference "
        f"{found['probability']:.1e} in probability, {found['heatmap']:.1e} in heatmaps"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
