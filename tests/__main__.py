"""``python -m tests``: everything, in two lanes at a time.

Tests with real processes look at times and memory, so they run one after the other, and are seen as
they come. What merely computes runs beside them and is told at the end. Needs half the time of
``python -m pytest``, which runs the same tests.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

_WITH_PROCESSES = ("api", "benchmarks", "bridge", "image", "k8s", "page", "survive", "tracing")


def main() -> int:
    """0 if both lanes pass."""
    folders = [f"tests/{name}" for name in _WITH_PROCESSES]
    pytest = [sys.executable, "-m", "pytest"]
    computing = [*pytest, "-p", "no:cacheprovider", *(f"--ignore={each}" for each in folders)]
    with tempfile.TemporaryFile() as told:
        beside = subprocess.Popen(computing, stdout=told, stderr=told)
        try:
            failed = subprocess.run([*pytest, *folders]).returncode
            failed |= beside.wait()
        finally:
            beside.kill()
        told.seek(0)
        print(told.read().decode(errors="replace"))
    return int(failed != 0)


if __name__ == "__main__":
    missing = [name for name in _WITH_PROCESSES if not Path("tests", name).is_dir()]
    sys.exit(f"no such folder in tests: {missing}" if missing else main())
