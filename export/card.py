"""The model card: what a reader must know of a bundle, from measured facts alone."""

from __future__ import annotations

from typing import Any

_GATE = "\n## Quality gate\n\n"
_PRECISION = "\n## Precision\n\n"

_SERIES = {
    "whole_series": "the whole series",
    "last_exam_alone": "its last exam alone",
    "exams_shuffled": "its exams in random order",
    "without_days": "its exams in order, without the days between them",
}


def _change_over_time(simulated: dict[str, Any] | None) -> str:
    if simulated is None:
        return "This model was not trained on series: it has not learned to use change over time.\n"
    rows = "\n".join(
        f"| {title} | {_estimate(simulated[f'auc_{name}'])} |" for name, title in _SERIES.items()
    )
    verdict = (
        ""
        if simulated["auc_whole_series"]["low"] > 0.5
        else "\n**That is no better than chance: this model has not learned to use change over "
        "time.**\n"
    )
    return f"""{simulated["series"]} simulated series of validation patients, growing masses against
slow, stable, regressing and recurring ones; the stopping point was chosen on them:

| what the model sees | AUC |
|---|---|
{rows}
{verdict}"""


def _subgroups(evaluation: dict[str, Any] | None) -> str:
    if evaluation is None:
        return ""
    rows, weak = [], []
    for column, by in evaluation["subgroups"].items():
        for group in by["groups"]:
            name = f"{column} {group['group']}"
            auc = group["auc"]
            told = "too few" if auc is None else _estimate(auc)
            rows.append(
                f"| {name} | {by['unit']} | {group['positives']} of {group['cases']} | {told} |"
            )
            if auc is not None and auc["low"] <= 0.5:
                weak.append(name)
    listing = "\n".join(rows)
    failures = (
        f"In these groups it was not shown to be better than chance: {', '.join(weak)}."
        if weak
        else "It was better than chance in every group with enough cases."
    )
    return f"""
## Subgroups

| group | per | cancers | AUC |
|---|---|---|---|
{listing}

{failures} Small groups have wide intervals.
"""


def _estimate(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def model_card(
    manifest: dict[str, Any],
    metrics: dict[str, Any],
    data: dict[str, Any],
    evaluation: dict[str, Any] | None = None,
) -> str:
    """Markdown of ``MODEL_CARD.md``; ``evaluation`` is the metrics of ``training evaluate``."""
    estimate = _estimate
    points = "\n".join(
        f"| {p['name']} | {p['threshold']:.3f} "
        f"| {p['sensitivity']:.3f} [{p['sensitivity_interval'][0]:.3f}, "
        f"{p['sensitivity_interval'][1]:.3f}] "
        f"| {p['specificity']:.3f} [{p['specificity_interval'][0]:.3f}, "
        f"{p['specificity_interval'][1]:.3f}] |"
        for p in manifest["operating_points"]
    )
    splits = "\n".join(
        f"| {name} | {s['patients']} | {s['breasts']} | {s['images']} | {s['per_class']} |"
        for name, s in data["splits"].items()
    )
    calibration = metrics["calibration"]
    verification = manifest["verification"]
    card = f"""# {manifest["name"]} {manifest["version"]}

**{manifest["intended_use"]}**

A CNN + LSTM hybrid: an image encoder reads each mammogram, an LSTM reads the exams of one breast
in time order with the time between them, softmax gives the probability of
{", ".join(f"`{name}`" for name in manifest["classes"])}. A single image is a series of length one.

## Data and terms

{data["terms"]}

| split | patients | breasts | images | images per class |
|---|---|---|---|---|
{splits}

Split by patient. Fingerprint of the data: `{data["fingerprint_sha256"]}`. Left out as unusable:
{len(data["left_out"])} image(s).

**Change over time was learned on simulated series only**: masses composited into lesion-free
mammograms that grow, stay, shrink or come back, at irregular intervals. No repeat mammograms with
pixels were available. How the model reads real series has not been measured.

## Figures

On the validation patients, on whom the best epoch, the temperature and the thresholds were also
chosen; they flatter the model a little. 95 % bootstrap intervals by patient.

| figure | value |
|---|---|
| AUC per image | {estimate(metrics["auc_per_image"])} |
| AUC per breast (its views together) | {estimate(metrics["auc_per_breast"])} |
| Brier score per breast, calibrated | {estimate(calibration["brier"])} |
| Expected calibration error per breast | {estimate(calibration["expected_calibration_error"])} |
| Prevalence among the breasts | {calibration["prevalence"]:.3f} |

| operating point | threshold | sensitivity | specificity |
|---|---|---|---|
{points}

{_change_over_time(metrics.get("simulated_series"))}{_subgroups(evaluation)}
## Limits and known failures

- The prevalence of the data is far above that of screening (about 0.5 to 2 %): the calibrated
  probability holds at the prevalence above, not in a screening population.
- Eight-bit images of 640 x 640 pixels were all there was to learn from: calcifications are mostly
  below that resolution.
- Large or multiple findings, distortions and asymmetries that are no mass were not simulated; over
  time only masses were.
- Scanned film, spot and magnification views, implants and vendors other than those of the training
  data are outside of what was measured.
- A heatmap shows what the score rests on. It is not an outline of a lesion.

## Making

{manifest["tools"]}. Exported graphs compared with Keras on {verification["cases"]}
series of real images: probabilities differ by at most {verification["probability"]:.1e}, heatmaps
by {verification["heatmap"]:.1e}.
"""
    return with_gate(card, manifest)


def with_gate(card: str, manifest: dict[str, Any]) -> str:
    """A card with the name and version of ``manifest`` and what is said of its gate, in place of
    what was said before."""
    kept = card.split(_PRECISION)[0].split(_GATE)[0].rstrip()
    return with_precision(f"{kept}\n{_GATE}{_gate(manifest.get('gate'))}", manifest)


def _gate(gate: dict[str, Any] | None) -> str:
    if gate is None:
        return (
            "None: nothing keeps images away that are no mammograms. The service starts with "
            "`MAMMOSEQ_GATE=warn` only.\n"
        )
    false, others = gate["false_refusals"], gate["others"]
    causes = ", ".join(
        f"`{rule}` {rate['value']:.2%}" for rule, rate in gate["by_rule"].items() if rate["value"]
    )
    rows = "\n".join(
        f"| {kind} | {rate['images']} | {rate['value']:.1%} "
        f"| {gate['others_by_distance'][kind]['value']:.1%} |"
        for kind, rate in others.items()
    )
    table = f"""
| other images | images | refused | by the distance alone |
|---|---|---|---|
{rows}
"""
    limit = f"{gate['threshold']:.3f}"
    return f"""Rules on the pixels, and a distance in feature space of at most {limit}:
{gate["method"]}.
Fitted on {gate["fitted_on"]}.

Of {gate["measured_on"]} it refuses {false["value"]:.2%} (95 % interval by patient
{false["interval"][0]:.2%} to {false["interval"][1]:.2%}): {causes or "none"}.
{table if others else ""}"""


def with_precision(card: str, manifest: dict[str, Any]) -> str:
    """A card with the name and version of ``manifest`` and, at its end, what is said of the
    precision, in place of what it said before."""
    _, _, rest = card.partition("\n")
    kept = rest.split(_PRECISION)[0].rstrip()
    return f"# {manifest['name']} {manifest['version']}\n{kept}\n{_PRECISION}{_precision(manifest)}"


def _precision(manifest: dict[str, Any]) -> str:
    if manifest["precision"] == "fp32":
        return "fp32: the encoder calculates as it was trained.\n"
    cost = manifest["verification"]["reduced"]
    made = f", calibrated on {n} images" if (n := cost.get("calibration_images")) else ""
    return f"""{manifest["precision"]}: the encoder was reduced after training{made}; the head is
fp32. All figures above are those of the fp32 model. On {cost["images"]} real images the
uncalibrated probability differs from it by {cost["probability_mean"]:.4f} on average and
{cost["probability_largest"]:.4f} at most; heatmaps correlate with those of fp32 by
{cost["heatmap_mean"]:.3f} on average and {cost["heatmap_worst"]:.3f} at worst.
`python -m training compare` measures what that costs in AUC.
"""
