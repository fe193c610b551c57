"""Figures get into a bundle from the run that measured it, and say what its card says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.bundle import ENCODER, FIGURES, GATE, HEAD, MODEL_CARD, Bundle, load_bundle
from app.figures import Figures, Subgroup
from export.__main__ import main
from export.bundle import export
from tests.export.test_export import evaluation, write_run
from tests.training.hybrids import small_hybrid


@pytest.fixture(scope="module")
def figures(bundle: Bundle) -> Figures:
    assert bundle.figures
    return Figures.model_validate_json(bundle.figures)


def evaluated(folder: Path, bundle: Bundle) -> Path:
    """The folder of an evaluate of ``bundle``, as far as an export reads it."""
    assert bundle.figures
    folder.mkdir()
    of = {
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "sha256": bundle.sha256,
    }
    (folder / "metrics.json").write_text(json.dumps({"bundle": of}))
    (folder / FIGURES).write_bytes(bundle.figures)
    return folder


# the shipped bundle


def test_shipped_figures_are_those_of_the_manifest(figures: Figures, bundle: Bundle) -> None:
    manifest = bundle.manifest
    for unit in ("breast", "image"):
        assert figures.roc[unit].auc.model_dump() == manifest.data[f"auc_per_{unit}"]
    assert figures.prevalence == manifest.data["prevalence"]
    for here, there in zip(figures.operating_points, manifest.operating_points, strict=True):
        assert here.model_copy(update={"measured_on": there.measured_on}) == there
    val = manifest.data["splits"]["val"]
    assert figures.roc["breast"].cases == val["breasts"]
    assert figures.roc["image"].cases == val["images"]
    assert figures.precision == manifest.precision


def test_shipped_subgroups_are_those_of_the_card(figures: Figures, bundle: Bundle) -> None:
    def row(group: Subgroup) -> str:
        auc = group.auc
        told = f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]" if auc else "too few"
        name = f"{group.column} {group.group}"
        return f"| {name} | {group.per} | {group.positives} of {group.cases} | {told} |"

    section = bundle.card.decode().partition("## Subgroups")[2].partition("\n\n##")[0]
    told = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert [row(group) for group in figures.subgroups] == told


# into a bundle


def test_export_takes_the_figures_of_the_run(bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.figures
    run = write_run(tmp_path / "run", small_hybrid())
    (run / FIGURES).write_bytes(bundle.figures)
    exported = export(run, tmp_path / "store" / "made" / "1.0.0")
    assert exported.figures == bundle.figures


def test_export_prefers_the_figures_of_an_evaluation_which_has_subgroups(
    bundle: Bundle, figures: Figures, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", small_hybrid())
    bare = figures.model_copy(update={"subgroups": ()})
    (run / FIGURES).write_text(bare.model_dump_json())
    measured = evaluation(tmp_path / "evaluate", auc=0.7)
    (measured / FIGURES).write_text(figures.model_dump_json())
    exported = export(run, tmp_path / "store" / "made" / "1.0.0", evaluation=measured)
    assert exported.figures
    assert Figures.model_validate_json(exported.figures).subgroups == figures.subgroups


def test_run_from_before_there_were_figures_is_exported_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", small_hybrid())
    target = tmp_path / "store" / "made" / "1.0.0"
    assert main(["--model", str(run), "--to", str(target)]) == 0
    assert load_bundle(target).figures is None
    assert "without figures.json the page draws no plots" in capsys.readouterr().out


def test_new_version_has_the_graphs_of_the_old_one_and_figures(
    bundle: Bundle, tmp_path: Path
) -> None:
    run = evaluated(tmp_path / "run", bundle)
    target = tmp_path / "store" / "other" / "9.0.0"
    arguments = ["--bundle", str(bundle.folder), "--evaluation", str(run), "--to", str(target)]
    assert main(arguments) == 0
    made = load_bundle(target)
    for name in (ENCODER, HEAD, GATE):
        assert (made.folder / name).read_bytes() == (bundle.folder / name).read_bytes()
    assert made.figures == bundle.figures
    assert made.card.startswith(b"# other 9.0.0\n")
    old = (bundle.folder / MODEL_CARD).read_text().partition("\n")[2]
    assert made.card.decode().partition("\n")[2] == old
    assert made.manifest.temperature == bundle.manifest.temperature


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / FIGURES).write_text('{"schema_version": 2}'), "is not valid"),
        (lambda run: (run / FIGURES).unlink(), FIGURES),
        (
            lambda run: (run / "metrics.json").write_text(
                json.dumps({"bundle": {"name": "x", "version": "1.0.0", "sha256": "0" * 64}})
            ),
            "is of x 1.0.0",
        ),
    ],
    ids=["other schema", "missing", "another bundle"],
)
def test_figures_that_are_not_of_this_bundle_are_refused_and_leave_nothing(
    bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    message: str,
) -> None:
    run = evaluated(tmp_path / "run", bundle)
    damage(run)
    target = tmp_path / "store" / "other" / "9.0.0"
    arguments = ["--bundle", str(bundle.folder), "--evaluation", str(run), "--to", str(target)]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not target.parent.exists()
