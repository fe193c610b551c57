"""Milliseconds and bytes of each DICOM result of one mammogram.

``python -m benchmarks.dicom_output FILE...``: DICOM files; without any, a synthetic one of 12
megapixels. The heatmaps are random, the worst case for size.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom

from app.bundle import Manifest, find_bundle, load_bundle
from app.imaging.decode import decode
from app.imaging.display import displayed
from app.imaging.preprocess import InputGeometry, preprocess
from app.render.result import CAPTURE_LONG_SIDE, BreastResult, ExamResult, ImageResult, StudyResult
from app.render.secondary_capture import secondary_captures
from app.render.segmentation import segmentations
from benchmarks.inputs import synthetic_files

_ROUNDS = 9
_MAX_PIXELS = 100_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    files = {path.name: path.read_bytes() for path in parser.parse_args().files}
    cv2.setNumThreads(1)  # as the service does
    bundle = load_bundle(find_bundle(Path("model_store"), None))
    start = time.perf_counter()
    from app.render.sr import structured_report

    print(f"import of app.render.sr: {1000 * (time.perf_counter() - start):.0f} ms, once")
    writers: dict[str, Callable[[StudyResult], list[bytes]]] = {
        "report": lambda result: [structured_report(result)],
        "overlay": secondary_captures,
        "map": segmentations,
    }
    print(f"{'file':<20}{'size':>14}{'kind':>10}{'first ms':>10}{'median ms':>11}{'bytes':>10}")
    for name, data in (files or synthetic_files(full_size=True)).items():
        if data[128:132] != b"DICM":
            continue
        result = _read(data, bundle.manifest, bundle.sha256)
        facts = result.breasts[0].exams[0].images[0].facts
        rows, columns = facts.rows, facts.columns
        for kind, write in writers.items():
            seconds = []
            for _ in range(_ROUNDS):
                start = time.perf_counter()
                (written,) = write(result)
                seconds.append(time.perf_counter() - start)
            print(
                f"{name:<20}{f'{rows} x {columns}':>14}{kind:>10}{1000 * seconds[0]:>10.0f}"
                f"{1000 * statistics.median(seconds):>11.1f}{len(written):>10}"
            )


def _read(data: bytes, manifest: Manifest, sha256: str) -> StudyResult:
    """The file as read by a model that sees evidence everywhere."""
    pixels, facts = decode(data, _MAX_PIXELS)
    seen = preprocess(pixels, InputGeometry(manifest.input.height, manifest.input.width))
    header = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
    shape = (manifest.heatmap.rows, manifest.heatmap.columns)
    heatmap = np.random.default_rng(0).random(shape, np.float32)
    shown = displayed(pixels, CAPTURE_LONG_SIDE, inverted=seen.inverted)
    image = ImageResult(0, header, facts, shown, seen.crop, seen.inverted, heatmap)
    exam = ExamResult(facts.exam_time and facts.exam_time.date(), 0, 0.4, 0.1, (image,))
    breast = BreastResult(
        laterality=facts.laterality,
        probabilities={manifest.positive_class: 0.4},
        probability=0.4,
        probability_before=0.3,
        positive=True,
        label=manifest.positive_class,
        scale=float(heatmap.max()),
        exams=(exam,),
        warnings=(),
    )
    point = manifest.operating_point(None)
    assert point is not None
    return StudyResult(
        "benchmark", datetime.now(UTC), manifest, sha256, point, manifest.positive_class, (breast,)
    )


if __name__ == "__main__":
    main()
