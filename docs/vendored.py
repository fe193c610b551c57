"""Fetch what the page uses of npm, unchanged, into ``app/web/vendor/``: ``make vendor``.

The packages and their versions are pinned in ``package.json`` there; npm checks each against the
integrity hash in ``package-lock.json`` and runs none of their scripts. A new version: change
``package.json``, run ``npm install --package-lock-only --ignore-scripts`` beside it, then
``make vendor``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[1] / "app/web/vendor"
# Of each package, the module that browsers load, and what the page uses it for
_MODULES = {
    "fflate": ("esm/browser.js", "opens zip archives"),
    "marked": ("lib/marked.esm.js", "reads the markdown of a model card: its lexer alone"),
}
_HEAD = """\
# What the page has from npm

<!-- written by `make vendor`; do not edit -->

Files as their packages hold them, unchanged: `package.json` names the versions, `package-lock.json`
the hashes of the packages, this table those of the files. `make vendor` fetches them again.

| file | package | version | of it | licence | use | sha512 |
|---|---|---|---|---|---|---|
"""


def fetch(into: Path) -> None:
    """Write modules, licences and README of the locked packages into a folder; needs npm."""
    lock = json.loads((VENDOR / "package-lock.json").read_text())["packages"]
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(VENDOR / name, temporary)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=temporary, check=True
        )
        rows = []
        for package, (module, use) in _MODULES.items():
            place = Path(temporary) / "node_modules" / package
            copied = into / f"{package}.js"
            shutil.copyfile(place / module, copied)
            shutil.copyfile(place / "LICENSE", into / f"{package}.LICENSE")
            facts = lock[f"node_modules/{package}"]
            rows.append(
                f"| `{copied.name}` | {package} | {facts['version']} | `{module}` "
                f"| {facts['license']} | {use} | `{sha512(copied)}` |\n"
            )
    (into / "README.md").write_text(_HEAD + "".join(rows))


def sha512(path: Path) -> str:
    return hashlib.sha512(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    fetch(VENDOR)
