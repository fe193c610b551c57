"""What ``inspect`` found -> ``metrics.json``, lists, plots and a page."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from training import duplicates
from training.duplicates import Pair
from training.page import Section, Table, write_page
from training.run_folder import write_metrics
from training.shortcuts import FOLDS, WARN_ABOVE, Shortcut

if TYPE_CHECKING:
    from training.inspection import Inspected, Seen

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_LISTED = 20  # rows of a table on the page; metrics.json and pairs.csv hold all


def write_report(run: Path, found: Inspected, positive_class: str, sample: int) -> None:
    """Write everything into ``run``. The sample sheet shows the images: where the set's terms
    forbid to pass them on, the page must not be passed on either."""
    pairs = [_pair(found.seen, pair) for pair in found.pairs]
    counts = _counts(found)
    write_metrics(
        run,
        {
            "findings": list(found.findings),
            "counts": counts,
            "pictures": {kind: _tally(found, kind) for kind in _KINDS},
            "duplicates": _summary(found, pairs),
            "shortcuts": {
                shortcut.name: None
                if shortcut.auc is None
                else asdict(shortcut.auc) | {"warns": shortcut.warns}
                for shortcut in found.shortcuts
            },
        },
    )
    with (run / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*_PAIR_COLUMNS])
        writer.writeheader()
        writer.writerows(pairs)
    _plot_counts(run / "counts.png", counts)
    _plot_sample(run / "sample.png", found, sample)
    _plot_shortcuts(run / "shortcuts.png", found.shortcuts, positive_class)
    write_page(run, "A look at the data", _lead(found, pairs), _sections(run, found, pairs, counts))


# counts, and kinds of pictures


def _counts(found: Inspected) -> dict[str, dict[str, dict[str, int]]]:
    """Images and patients, by split and class."""
    kept = [row for row in found.rows if row.label]
    return {
        split or "not split": {
            label: {
                "images": len(rows := [r for r in kept if (r.split, r.label) == (split, label)]),
                "patients": len({row.patient_id for row in rows}),
            }
            for label in found.classes
        }
        for split in sorted({row.split for row in kept})
    }


_KINDS: dict[str, Callable[[Seen], str]] = {
    "rows x columns": lambda seen: f"{seen.facts.rows} x {seen.facts.columns}",
    "bits": lambda seen: str(seen.facts.bits),
    "format": lambda seen: seen.facts.format,
    "bright background, turned": lambda seen: "yes" if seen.inverted else "no",
    "blank, left out": lambda seen: "yes" if seen.blank else "no",
}


def _tally(found: Inspected, kind: str) -> dict[str, dict[str, int]]:
    """How many images of each class are of each kind, the most frequent kind first."""
    name = _KINDS[kind]
    frequent = Counter(name(seen) for seen in found.seen).most_common()
    per_class = Counter((name(seen), seen.row.label) for seen in found.seen)
    return {
        value: {label: per_class[value, label] for label in found.classes} for value, _ in frequent
    }


# duplicates

_PAIR_COLUMNS = (
    "first", "second", "correlation", "identical", "patients", "first_class", "second_class",
    "first_split", "second_split",
)  # fmt: skip


def _pair(seen: Sequence[Seen], pair: Pair) -> dict[str, Any]:
    first, second = seen[pair.first].row, seen[pair.second].row
    return {
        "first": str(first.path),
        "second": str(second.path),
        "correlation": round(pair.correlation, 3),
        "identical": pair.identical,
        "patients": "same" if first.patient_id == second.patient_id else "different",
        "first_class": first.label,
        "second_class": second.label,
        "first_split": first.split,
        "second_split": second.split,
    }


def _across(pair: dict[str, Any], what: str) -> bool:
    return bool(pair[f"first_{what}"] != pair[f"second_{what}"])


def _summary(found: Inspected, pairs: Sequence[dict[str, Any]]) -> dict[str, int]:
    sizes = Counter(duplicates.groups(len(found.seen), found.pairs).tolist()).values()
    return {
        "identical_pairs": sum(pair["identical"] for pair in pairs),
        "near_duplicate_pairs": sum(not pair["identical"] for pair in pairs),
        "pairs_across_classes": sum(_across(pair, "class") for pair in pairs),
        "pairs_across_splits": sum(_across(pair, "split") for pair in pairs),
        "pairs_of_different_patients": sum(pair["patients"] == "different" for pair in pairs),
        "images_with_a_duplicate": sum(size for size in sizes if size > 1),
        "groups": sum(size > 1 for size in sizes),
    }


# the page


def _lead(found: Inspected, pairs: Sequence[dict[str, Any]]) -> str:
    warned = [shortcut.name for shortcut in found.shortcuts if shortcut.warns]
    return (
        f"{len(found.rows)} images of {len({row.patient_id for row in found.rows})} patients, "
        f"{len(found.seen)} of them readable. Faults that would stop a training: "
        f"{len(found.findings)}. Pairs of duplicates: {len(pairs)}. "
        f"Shortcut warnings: {', '.join(warned) or 'none'}."
    )


def _sections(
    run: Path,
    found: Inspected,
    pairs: Sequence[dict[str, Any]],
    counts: dict[str, dict[str, dict[str, int]]],
) -> list[Section]:
    crossing = [
        pair
        for pair in pairs
        if _across(pair, "class") or _across(pair, "split") or pair["patients"] == "different"
    ]
    return [
        Section(
            "Faults",
            ["These stop a training."] if found.findings else ["None."],
            Table(["finding"], [[finding] for finding in found.findings])
            if found.findings
            else None,
        ),
        Section(
            "Classes and splits",
            table=Table(
                ["split", "class", "images", "patients"],
                [
                    [split, label, str(number["images"]), str(number["patients"])]
                    for split, classes in counts.items()
                    for label, number in classes.items()
                ],
            ),
            pictures=[run / "counts.png"],
        ),
        Section("A sample of each class", pictures=[run / "sample.png"]),
        Section(
            "Kinds of pictures",
            ["A kind that one class has more of is a shortcut. The most frequent ones are listed."],
            Table(
                ["", "kind", *found.classes],
                [
                    [kind, value, *(str(number) for number in per_class.values())]
                    for kind in _KINDS
                    for value, per_class in list(_tally(found, kind).items())[:_LISTED]
                ],
            ),
        ),
        Section(
            "Duplicates",
            table=Table(
                ["", "count"],
                [
                    [name.replace("_", " "), str(number)]
                    for name, number in _summary(found, pairs).items()
                ],
            ),
        ),
        Section(
            "Duplicates that cross classes, splits or patients",
            [f"{min(_LISTED, len(crossing))} of {len(crossing)} pairs; all are in pairs.csv."],
            Table(
                list(_PAIR_COLUMNS),
                [
                    [Path(pair["first"]).name, Path(pair["second"]).name]
                    + [str(pair[column]) for column in _PAIR_COLUMNS[2:]]
                    for pair in crossing[:_LISTED]
                ],
            )
            if crossing
            else None,
        ),
        Section(
            "Shortcuts",
            [
                f"AUC of the positive class, told without the breast, by {FOLDS}-fold "
                "cross-validation over patients, with a 95 % bootstrap interval by patient. It is "
                f"a warning when the lower end is above {WARN_ABOVE}. A model that does not clear "
                "these figures has learned nothing of the disease.",
            ],
            Table(
                ["from", "AUC", ""],
                [
                    [
                        shortcut.name,
                        str(shortcut.auc) if shortcut.auc else f"fewer than {FOLDS} patients",
                        "warning" if shortcut.warns else "",
                    ]
                    for shortcut in found.shortcuts
                ],
            ),
            [run / "shortcuts.png"],
        ),
    ]


# plots


def _plot_counts(path: Path, counts: dict[str, dict[str, dict[str, int]]]) -> None:
    classes = list(next(iter(counts.values())))
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    width = 0.8 / len(counts)
    for position, (split, per_class) in enumerate(counts.items()):
        places = np.arange(len(classes)) + (position - (len(counts) - 1) / 2) * width
        bars = axes.bar(
            places, [per_class[name]["images"] for name in classes], 0.94 * width, label=split
        )
        axes.bar_label(bars, padding=2)
    axes.set_xticks(range(len(classes)), classes)
    axes.set(ylabel="images")
    axes.margins(y=0.12)
    axes.legend(title="split", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _plot_sample(path: Path, found: Inspected, sample: int) -> None:
    """A row of images a class, drawn at random, the same ones every time."""
    rng = np.random.default_rng(0)
    classes = [c for c in found.classes if any(seen.row.label == c for seen in found.seen)]
    figure, grid = plt.subplots(
        len(classes),
        sample,
        figsize=(1.5 * sample, 1.75 * len(classes)),
        squeeze=False,
        layout="constrained",
    )
    for line, label in zip(grid, classes, strict=True):
        of_class = [seen for seen in found.seen if seen.row.label == label]
        order = rng.permutation(len(of_class))[:sample]
        for axes in line:
            axes.axis("off")
        for axes, index in zip(line, order, strict=False):
            axes.imshow(of_class[index].picture, cmap="gray", vmin=0, vmax=255)
        line[0].set_title(label, loc="left")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _plot_shortcuts(path: Path, shortcuts: Sequence[Shortcut], positive_class: str) -> None:
    told = [(shortcut, shortcut.auc) for shortcut in shortcuts if shortcut.auc is not None]
    figure, axes = plt.subplots(figsize=(8, 1.3 + 0.36 * max(len(told), 1)), layout="constrained")
    for place, (shortcut, auc) in enumerate(told):
        axes.errorbar(
            auc.value,
            place,
            xerr=_reach(auc.value, auc.low, auc.high),
            fmt="o",
            capsize=3,
            color="tab:red" if shortcut.warns else "tab:blue",
        )
    axes.axvline(0.5, color="grey", linewidth=0.8)
    axes.axvline(WARN_ABOVE, color="tab:red", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(told)), [shortcut.name for shortcut, _ in told])
    axes.set_ylim(max(len(told), 1) - 0.5, -0.5)
    axes.set(xlabel=f"AUC of {positive_class!r}, 95 % interval; red: interval above {WARN_ABOVE}")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _reach(value: float, low: float, high: float) -> NDArray[np.float64]:
    return np.array([[max(0.0, value - low)], [max(0.0, high - value)]])
