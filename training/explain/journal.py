"""Measurements piece by piece: what was measured is kept, and a stopped run goes on after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from training.explain.perturbation import Curve
from training.explain.pointing import Case
from training.explain.randomised import Similarity
from training.run_folder import replace

Record = TypeVar("Record", Similarity, Curve, Case)


def measured(
    path: Path,
    kind: type[Record],
    pieces: Mapping[str, Callable[[], list[Record]]],
    *,
    title: str,
    unit: str,
) -> list[Record]:
    """The records of every piece, in the order of ``pieces``. ``path`` gets one line of JSON a
    piece; those it holds already are not measured again, and a line cut short is."""
    held: dict[str, list[Record]] = {}
    whole = ""
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        if line.endswith("\n"):
            entry = json.loads(line)
            held[entry["piece"]] = [kind(**record) for record in entry["records"]]
            whole += line
    replace(path, lambda part: part.write_text(whole))
    with path.open("a") as file:
        for name, measure in tqdm(pieces.items(), title, unit=unit):
            if name not in held:
                held[name] = measure()
                records = [asdict(record) for record in held[name]]
                file.write(json.dumps({"piece": name, "records": records}) + "\n")
                file.flush()
    return [record for name in pieces for record in held[name]]
