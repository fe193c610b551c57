"""``python -m export --model runs/NAME --to model_store/NAME/VERSION``, or ``--bundle`` to reduce
the precision of one that exists."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="run folder of a finished fit")
    source.add_argument("--bundle", type=Path, help="fp32 bundle to reduce, needs --calibration")
    parser.add_argument("--to", type=Path, required=True, help="model_store/<name>/<version>")
    parser.add_argument(
        "--precision", choices=("fp32", "int8", "fp16"), default="fp32", help="of the encoder"
    )
    parser.add_argument(
        "--calibration", type=Path, help="npz with pixels uint8 [images, height, width]"
    )
    parser.add_argument(
        "--evaluation", type=Path, help="run folder of an evaluate of this model, for the card"
    )
    chosen = parser.parse_args(arguments)
    if (chosen.bundle is None) != (chosen.calibration is None):
        parser.error("--bundle and --calibration go together; a run has images of its own")
    if chosen.bundle and chosen.precision == "fp32":
        parser.error("--bundle needs --precision int8 or fp16: it is fp32 already")

    from app.bundle import BundleError
    from export.bundle import export
    from export.reduced import reduce_bundle
    from export.verify import VerificationError

    try:
        if chosen.bundle:
            bundle = reduce_bundle(chosen.bundle, chosen.to, chosen.precision, chosen.calibration)
        else:
            bundle = export(chosen.model, chosen.to, chosen.precision, chosen.evaluation)
    except (
        VerificationError,
        BundleError,
        FileExistsError,
        FileNotFoundError,
        ValueError,
    ) as error:
        print(f"export failed: {error}", file=sys.stderr)
        return 1
    found = bundle.manifest.verification
    print(
        f"{bundle.folder}: verified on {found['cases']} series, largest difference "
        f"{found['probability']:.1e} in probability, {found['heatmap']:.1e} in heatmaps"
    )
    if cost := found.get("reduced"):
        print(
            f"{bundle.manifest.precision} against fp32 on {cost['images']} images: probability "
            f"differs by {cost['probability_mean']:.4f} on average and "
            f"{cost['probability_largest']:.4f} at most; heatmaps correlate by "
            f"{cost['heatmap_mean']:.3f} on average, {cost['heatmap_worst']:.3f} at worst"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
