"""``python -m tests.survive.soak MINUTES``: mixed load, a tenth of it bad, on one service.

Every answer must be the one that the service gave when it did nothing else, a refusal where the
input is bad, never a 5xx; memory and open files must not grow. Exit status 1 otherwise.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.bundle import find_bundle
from tests.pictures import breast, dicom, encoded, png, png_claiming, real_dicom, sixteen_bit
from tests.serving import REPOSITORY, Service, serving
from tests.survive.load import Load, Question, learned, singles, under_load

_CLIENTS = 4
_SAMPLE_SECONDS = 5.0
_WARM = 1 / 3  # of the time, until all caches are full
_MEMORY_GROWTH = 0.05  # of the middle third's median, for the last third's
_FILES_GROWTH = 2
_QUIET = "?overlay=none&gate=warn"


def mixed() -> list[Question]:
    """Ninety good requests and ten bad ones, in an order that mixes them."""
    scans = [sixteen_bit(breast(400, 300, seed=seed)) for seed in range(3)]
    good = [
        *singles(20),
        *(Question(f"/predict{_QUIET}", encoded(".jpg", breast(640, 480, seed=n))) for n in (1, 2)),
        *(Question(f"/predict{_QUIET}", encoded(".tiff", scan)) for scan in scans),
        *(Question("/predict?gate=warn", dicom(scan)) for scan in scans),
        *(Question(f"/predict/series{_QUIET}", dicom(scan)) for scan in scans),
        *(
            Question("/predict?gate=warn", real_dicom(kind))
            for kind in ("explicit", "j2k_lossless", "jpegls_lossless", "rle")
        ),
        Question("/pixels?long_side=256", png(breast(600, 400))),
    ]
    image, film = png(breast(300, 200)), dicom(scans[0])
    bad = [
        Question("/predict", b""),
        Question("/predict", b"no image"),
        Question("/predict", image[: len(image) // 2]),
        Question("/predict", png(np.zeros((300, 200), np.uint8))),
        Question("/predict", png_claiming(100_000, 100_000)),
        Question("/predict", film[: len(film) // 2]),
        Question("/predict?operating_point=none", image),
        Question("/predict", b'{"file": "%"}', (("Content-Type", "application/json"),)),
        Question("/predict/series", b"PK\x03\x04" + bytes(100)),
        Question(
            "/predict/series", b"--a\r\n", (("Content-Type", "multipart/form-data; boundary=a"),)
        ),
    ]
    questions: list[Question] = []
    for number, wrong in enumerate(bad):
        nine = [good[(9 * number + place) % len(good)] for place in range(9)]
        questions += [*nine, wrong]
    return questions


def soak(service: Service, minutes: float) -> bool:
    """Whether all held; prints the figures."""
    port = service.client.base_url.port or 80
    questions = learned(port, mixed())
    told = Counter(question.expected[0] // 100 for question in questions)
    assert told == {2: 90, 4: 10}, [q.expected for q in questions if q.expected[0] // 100 != 2]
    memory: list[float] = []
    files: list[int] = []
    end = time.monotonic() + 60 * minutes
    with under_load(port, questions, clients=_CLIENTS) as load:
        while time.monotonic() < end:
            time.sleep(_SAMPLE_SECONDS)
            memory.append(_resident_mb(service))
            files.append(len(list(Path(f"/proc/{service.process.pid}/fd").iterdir())))
    return _told(load, memory, files, minutes)


def _told(load: Load, memory: Sequence[float], files: Sequence[int], minutes: float) -> bool:
    third = max(1, round(len(memory) * _WARM))
    before, after = np.median(memory[third:-third]), np.median(memory[-third:])
    most_before, most_after = max(files[third:-third]), max(files[-third:])
    statuses = dict(sorted(Counter(outcome.status for outcome in load.outcomes).items()))
    print(
        f"{minutes:g} minutes, {_CLIENTS} clients, {len(load.outcomes)} requests: "
        f"status {statuses}; failed {len(load.failed)}, "
        f"not as unloaded {len(load.wrong)}\n"
        f"memory {memory[0]:.0f} MB at first, median {before:.0f} MB in the middle third, "
        f"{after:.0f} MB in the last; open files {most_before}, {most_after}"
    )
    return (
        not load.failed
        and not load.wrong
        and after <= before * (1 + _MEMORY_GROWTH)
        and most_after <= most_before + _FILES_GROWTH
    )


def _resident_mb(service: Service) -> float:
    pages = Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    newest = find_bundle(REPOSITORY / "model_store", None)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(newest, Path(folder), processes=1, max_queue_seconds=60) as running,
    ):
        sys.exit(0 if soak(running, float(sys.argv[1])) else 1)
