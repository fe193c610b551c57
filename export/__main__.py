"""``python -m export --model runs/NAME --to model_store/NAME/VERSION``, or ``--bundle`` to reduce
the precision of one that exists, or to give it a quality gate or the figures of an evaluation.
``python -m export sign --bundle model_store/NAME/VERSION --key private.pem`` signs one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["sign"]:
        return _sign(given[1:])
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="run folder of a finished fit")
    source.add_argument("--bundle", type=Path, help="bundle to reduce, to gate, to give figures")
    parser.add_argument("--to", type=Path, required=True, help="model_store/<name>/<version>")
    parser.add_argument(
        "--precision", choices=("fp32", "int8", "fp16"), default="fp32", help="of the encoder"
    )
    parser.add_argument(
        "--calibration", type=Path, help="npz with pixels uint8 [images, height, width]"
    )
    parser.add_argument("--evaluation", type=Path, help="run folder of an evaluate of this model")
    parser.add_argument(
        "--gate", type=Path, help="manifest with splits: the quality gate is fitted on its images"
    )
    parser.add_argument("--image-root", type=Path, help="of the manifest's images")
    parser.add_argument(
        "--others", type=Path, help="images that the gate is measured on, one folder per kind"
    )
    chosen = parser.parse_args(given)
    if chosen.model and chosen.calibration:
        parser.error("--calibration goes with --bundle; a run has images of its own")
    added = (chosen.calibration, chosen.gate, chosen.evaluation)
    if chosen.bundle and sum(path is not None for path in added) != 1:
        parser.error(
            "--bundle needs one of --calibration, to reduce it, --gate, --evaluation, for figures"
        )
    if chosen.calibration and chosen.precision == "fp32":
        parser.error("--calibration needs --precision int8 or fp16: the bundle is fp32 already")
    if chosen.bundle and not chosen.calibration and chosen.precision != "fp32":
        parser.error("--gate and --evaluation leave the precision of a bundle as it is")
    if (chosen.image_root or chosen.others) and not chosen.gate:
        parser.error("--image-root and --others go with --gate")

    from app.bundle import BundleError
    from export.bundle import export
    from export.figures import add_figures
    from export.gate import GateImages, add_gate
    from export.reduced import reduce_bundle
    from export.verify import VerificationError

    try:
        images = GateImages(chosen.gate, chosen.image_root, chosen.others) if chosen.gate else None
        if chosen.bundle and images:
            bundle = add_gate(chosen.bundle, chosen.to, images)
        elif chosen.bundle and chosen.evaluation:
            bundle = add_figures(chosen.bundle, chosen.to, chosen.evaluation)
        elif chosen.bundle:
            bundle = reduce_bundle(chosen.bundle, chosen.to, chosen.precision, chosen.calibration)
        else:
            bundle = export(chosen.model, chosen.to, chosen.precision, chosen.evaluation, images)
    except (
        VerificationError,
        BundleError,
        FileExistsError,
        FileNotFoundError,
        ValueError,
    ) as error:
        print(f"export failed: {error}", file=sys.stderr)
        return 1
    if not bundle.figures:
        print("without figures.json the page draws no plots: --bundle with --evaluation adds it")
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
    if gate := bundle.manifest.gate:
        low, high = gate.false_refusals.interval or (0.0, 1.0)
        print(
            f"the gate refuses {gate.false_refusals.value:.2%} [{low:.2%}, {high:.2%}] of "
            f"{gate.measured_on}"
        )
        for rule, rate in gate.by_rule.items():
            print(f"  by {rule}: {rate.value:.2%}")
        for kind, rate in gate.others.items():
            print(
                f"  {kind}: {rate.value:.1%} of {rate.images} images, "
                f"{gate.others_by_distance[kind].value:.1%} by the distance alone"
            )
    return 0


def _sign(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m export sign")
    parser.add_argument("--bundle", type=Path, required=True, help="model_store/<name>/<version>")
    parser.add_argument("--key", type=Path, required=True, help="private key on P-256, PEM")
    chosen = parser.parse_args(given)

    from app.bundle import BundleError
    from export.sign import sign

    try:
        bundle = sign(chosen.bundle, chosen.key)
    except (BundleError, OSError, ValueError) as error:
        print(f"not signed: {error}", file=sys.stderr)
        return 1
    print(f"{bundle.folder}: signed with key {bundle.signed_by}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
