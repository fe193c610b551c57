"""The house as DESIGN.md draws it: who may import whom, and that no table has rotted."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from app import metrics
from app.problems import PROBLEMS
from app.settings import Settings
from docs import reference
from docs.metric_notes import LABELS, NOTES

REPOSITORY = Path(__file__).resolve().parents[1]
OURS = ("app", "training", "export", "benchmarks")

# For each folder or module, what of ours it may import; the longest matching name counts.
MAY_IMPORT = {
    "app": (),
    "app.imaging": ("app.imaging", "app.problems"),
    "app.bundle": ("app.signature",),
    "app.signature": (),
    "app.figures": ("app.bundle",),
    "app.problems": (),
    "app.machine": (),
    "app.logs": (),
    "app.settings": ("app.imaging", "app.machine", "app.logs"),
    "app.tracing": ("app.tracing",),
    "app.metrics": ("app.machine",),
    "app.inference": (
        "app.inference", "app.imaging", "app.bundle", "app.figures", "app.problems", "app.settings",
        "app.metrics", "app.machine", "app.tracing.spans",
    ),
    "app.access": ("app.access", "app.settings", "app.problems"),
    "app.audit": ("app.audit", "app.settings", "app.metrics"),
    "app.render": ("app.render", "app.imaging", "app.bundle"),
    "app.bridge": ("app.bridge", "app.logs", "app.tracing"),
    "app.api": ("app",),
    "app.__main__": ("app",),
    "training": (
        "training", "app.imaging", "app.inference", "app.bundle", "app.figures", "app.problems",
    ),
    "export": (
        "export", "training.models", "training.manifest", "app.imaging", "app.inference",
        "app.bundle", "app.signature", "app.figures", "app.problems",
    ),
}  # fmt: skip
# What only training and export may load: none of it is installed where the service runs.
FRAMEWORKS = {
    "tensorflow", "keras", "tf2onnx", "onnx", "torch", "sklearn", "scipy", "matplotlib",
}  # fmt: skip


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside of functions, by its full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found |= {_module_or_parent(node.module, alias.name) for alias in node.names}
    return found


def _module_or_parent(module: str, name: str) -> str:
    """``from app import metrics`` imports app.metrics; ``from app.bundle import X`` app.bundle."""
    place = REPOSITORY.joinpath(*module.split("."), name)
    is_module = place.is_dir() or place.with_suffix(".py").is_file()
    return f"{module}.{name}" if is_module else module


def within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


@pytest.mark.parametrize("path", sources("app", "training", "export"), ids=module_name)
def test_module_imports_only_what_its_place_in_the_house_allows(path: Path) -> None:
    name = module_name(path)
    place = max((key for key in MAY_IMPORT if within(name, key)), key=len)
    ours = {module for module in imports(path) if module.split(".")[0] in OURS}
    too_much = {m for m in ours if not any(within(m, allowed) for allowed in MAY_IMPORT[place])}
    assert not too_much


@pytest.mark.parametrize("path", sources("app"), ids=module_name)
def test_service_imports_no_training_framework(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path)} & FRAMEWORKS


def test_importing_the_service_loads_no_training_framework() -> None:
    script = (
        "import sys, app.__main__, app.api.application\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    loaded = set(printed.split())
    assert "onnxruntime" in loaded
    assert not loaded & (FRAMEWORKS | {"training", "export"})


def test_only_the_edge_knows_http() -> None:
    for path in sources("app"):
        if not within(module_name(path), "app.api") and path.name != "__main__.py":
            packages = {module.split(".")[0] for module in imports(path)}
            assert not packages & {"fastapi", "starlette", "uvicorn"}, path


def test_no_module_is_named_after_nothing() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
    assert not {path.stem for path in sources(*OURS, "tests")} & vague


# problem codes


def _answered_codes(path: Path) -> Iterator[str]:
    """Problem codes in a file, but for the lists that only document a route."""
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        if names & {"_IMAGE_CODES", "_SERIES_CODES", "_LOGIN_CODES", "_OTHER_CODES"}:
            continue
        documenting = {
            id(inner)
            for call in ast.walk(node)
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id == "documented"
            for inner in ast.walk(call)
        }
        for inner in ast.walk(node):
            if isinstance(inner, ast.Constant) and id(inner) not in documenting:
                yield str(inner.value)


def test_every_problem_code_that_is_raised_is_in_the_table() -> None:
    for path in sources("app"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal":
                code = node.args[0]
                if isinstance(code, ast.Constant):
                    assert code.value in PROBLEMS, f"{path}:{node.lineno}"


def test_every_problem_code_of_the_table_can_be_answered() -> None:
    paths = [path for path in sources("app") if path.name != "problems.py"]
    answered = {code for path in paths for code in _answered_codes(path)}
    assert not set(PROBLEMS) - answered


def test_every_problem_says_what_to_do() -> None:
    for code, problem in PROBLEMS.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
        assert 400 <= problem.status < 600
        assert problem.title
        assert problem.advice.endswith(".")


def test_every_setting_that_an_advice_names_exists() -> None:
    named = {
        name.lower()
        for problem in PROBLEMS.values()
        for name in re.findall(r"MAMMOSEQ_([A-Z_]+)", problem.advice)
    }
    assert named
    assert named <= set(Settings.model_fields)


# documentation tables


def first_column(document: str) -> list[str]:
    """Names in backticks in the first column of a document's tables."""
    text = (REPOSITORY / "docs" / document).read_text()
    return re.findall(r"^\|\s*`([^`]+)`\s*\|", text, re.MULTILINE)


def test_every_setting_is_documented() -> None:
    expected = {f"MAMMOSEQ_{name.upper()}" for name in Settings.model_fields}
    documented = first_column("settings.md")
    assert set(documented) == expected
    assert len(documented) == len(expected)


def test_every_metric_is_documented() -> None:
    script = (
        "import app.metrics, prometheus_client\n"
        "for family in prometheus_client.REGISTRY.collect():\n"
        "    kind = '_total' if family.type == 'counter' else ''\n"
        "    print(family.name + kind)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    expected = {name for name in printed.split() if name.startswith("mammoseq_")}
    assert {name for name in first_column("metrics.md") if name.startswith("mammoseq_")} == expected


def test_metrics_are_documented_one_by_one() -> None:
    declared = [m for m in vars(metrics).values() if isinstance(m, MetricWrapperBase)]
    names = {f"{f.name}{'_total' * (f.type == 'counter')}" for m in declared for f in m.describe()}
    assert NOTES.keys() == names
    assert LABELS.keys() == {label for metric in declared for label in metric._labelnames}
    assert (REPOSITORY / "docs" / "metrics.md").read_text() == reference.metric_table()


def test_every_problem_is_documented_with_its_status() -> None:
    text = (REPOSITORY / "docs" / "problems.md").read_text()
    rows = dict(re.findall(r"^\|\s*`([^`]+)`\s*\|\s*(\d{3})\s*\|", text, re.MULTILINE))
    assert rows == {code: str(problem.status) for code, problem in PROBLEMS.items()}


def test_every_test_that_stands_against_a_threat_exists() -> None:
    text = (REPOSITORY / "docs" / "security.md").read_text()
    threats = [line for line in text.splitlines() if re.match(r"\| [STRIDE] \|", line)]
    named = [re.findall(r"`(test_\w+)`", line) for line in threats]
    written = {
        node.name
        for path in sources("tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert {line[2] for line in threats} == set("STRIDE")
    assert all(named)
    assert {name for names in named for name in names} <= written
