"""Fuzzing of the way from bytes to the cropped breast: only documented refusals, no crash.

    python -m tests.fuzz_decode --cases 200000

Small files of every syntax, depth, LUT and format are mutated: their bytes, their header fields,
and the code streams within intact files. Case number n is always the same file. The cases run in
processes of some thousands each: one that dies by a signal is reported with its case, and the next
goes on behind it. Exit status 1 if anything but a refusal was raised, a process died, a case took
longer than ``--seconds``, or a process grew by more than ``--megabytes``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid

from app.imaging.decode import decode, decode_reduced
from app.imaging.preprocess import InputGeometry, crop_breast
from app.problems import PROBLEMS, Refusal
from tests import syntaxes
from tests.pictures import encoded, item, lut, png

MAX_PIXELS = 50_000_000  # the default of the service
SIZE = InputGeometry(64, 40)
COARSE = InputGeometry(12, 8)  # for which the files are large images
PIECE = 10_000
WARMED_UP = 0.3  # part of a piece after which its memory must not grow
Random = np.random.Generator


# files to start from


@dataclass(frozen=True)
class Seed:
    """A file; if it is compressed DICOM, also its syntax, frame and uncompressed file."""

    data: bytes
    syntax: str = ""
    frame: bytes = b""
    source: bytes = b""


def seeds() -> list[Seed]:
    compressed = [
        Seed(
            syntaxes.compressed(case),
            coding.syntax,
            syntaxes.frame_of(case),
            syntaxes.uncompressed(depth),
        )
        for case, (coding, depth) in syntaxes.CASES.items()
    ]
    return compressed + [Seed(data) for data in (*_uncompressed(), *_presented(), *_rasters())]


def _uncompressed() -> Iterator[bytes]:
    for depth in syntaxes.DEPTHS:
        data = syntaxes.uncompressed(depth)
        yield data
        for syntax in (uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian):
            dataset = pydicom.dcmread(BytesIO(data))
            dataset.file_meta.TransferSyntaxUID = syntax
            target = BytesIO()
            dataset.save_as(target, implicit_vr=syntax == uid.ImplicitVRLittleEndian)
            yield target.getvalue()
    big_endian = BytesIO()
    dataset = pydicom.dcmread(BytesIO(syntaxes.uncompressed("8 bit")))
    fresh = pydicom.Dataset()
    fresh.update({element.tag: element for element in dataset})
    fresh.file_meta = dataset.file_meta
    fresh.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    fresh.save_as(big_endian, enforce_file_format=True)
    yield big_endian.getvalue()


def _presented() -> Iterator[bytes]:
    curve = np.arange(4096) ** 2 // 4096
    for tags in (
        {"WindowCenter": ["2000", "1"], "WindowWidth": ["1000", "2"], "RescaleSlope": "2"},
        {"WindowCenter": "2000", "WindowWidth": "1000", "VOILUTFunction": "SIGMOID"},
        {"VOILUTSequence": [lut(curve, 0, 12)], "PresentationLUTShape": "INVERSE"},
        {"ModalityLUTSequence": [lut(curve, 0, 16)], "PhotometricInterpretation": "MONOCHROME1"},
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 100, "NumberOfFrames": 1},
        {
            "SharedFunctionalGroupsSequence": [
                item(FrameVOILUTSequence=[item(WindowCenter="2000", WindowWidth="1000")])
            ]
        },
    ):
        yield syntaxes.uncompressed("12 bit", **tags)


def _rasters() -> Iterator[bytes]:
    eight, sixteen = syntaxes.picture(8), syntaxes.picture(16)
    colour = cv2.applyColorMap(eight, cv2.COLORMAP_VIRIDIS)
    yield from (png(eight), png(sixteen), png(colour))
    yield from (encoded(".jpg", eight), encoded(".jpg", colour))
    yield from (encoded(".tiff", eight), encoded(".tiff", sixteen))
    for options in (
        {"format": "JPEG", "progressive": True},
        {"format": "TIFF", "compression": "tiff_lzw"},
        {"format": "TIFF", "compression": "tiff_adobe_deflate"},
        {"format": "TIFF", "compression": "packbits"},
        {"format": "TIFF", "compression": "jpeg"},
    ):
        target = BytesIO()
        Image.fromarray(eight).save(target, **options)  # type: ignore[arg-type]
        yield target.getvalue()


# mutations

NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    11,
    12,
    15,
    16,
    17,
    31,
    32,
    49,
    50,
    51,
    71,
    72,
    73,
    255,
    256,
    32768,
    65535,
)
TEXTS = (
    "",
    "0",
    "1",
    "-1",
    "1e308",
    "1e-308",
    "nan",
    "2000",
    "0.5",
    "MONOCHROME1",
    "RGB",
    "x" * 40,
)
FIELDS = {
    "US": (
        "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "PlanarConfiguration",
    ),
    "IS": ("NumberOfFrames",),
    "DS": ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"),
    "CS": (
        "PhotometricInterpretation", "PresentationLUTShape", "VOILUTFunction", "Modality",
        "ImageLaterality", "ViewPosition", "PresentationIntentType",
    ),
    "DA": ("StudyDate", "AcquisitionDate"),
    "TM": ("StudyTime",),
}  # fmt: skip
SYNTAXES = tuple({coding.syntax for coding in syntaxes.CODINGS.values()}) + tuple(
    uid.UncompressedTransferSyntaxes
)


def _bytes(data: bytes, random: Random, most: int | None = None) -> bytes:
    """Some bytes changed: all over, or within the first ``most``."""
    changed = bytearray(data)
    end = min(len(data), most or len(data))
    for place in random.integers(0, end, random.integers(1, 12)):
        kind = random.integers(4)
        if kind == 0:
            changed[place] ^= 1 << int(random.integers(8))
        elif kind == 1:
            changed[place] = int(random.integers(256))
        elif kind == 2:
            changed[place] = int(random.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF)))
        else:
            size = int(random.choice((2, 4)))
            order = "little" if random.integers(2) else "big"
            number = int(random.choice((0, 1, 64, 255, 256, 4096, 32767, 65535, 2**31, 2**32 - 1)))
            number &= (1 << (8 * size)) - 1
            changed[place : place + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
    return bytes(changed)


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.integers(len(data))]


def _moved(data: bytes, random: Random) -> bytes:
    """A piece left out, doubled, or put elsewhere."""
    start, end = sorted(random.integers(0, len(data), 2))
    piece = data[start : min(end, start + 200)]
    kind = random.integers(3)
    if kind == 0:
        return data[:start] + data[start + len(piece) :]
    place = start if kind == 1 else random.integers(len(data))
    return data[:place] + piece + data[place:]


def _fields(data: bytes, random: Random) -> bytes:
    """Header fields set to what nobody expects."""
    dataset = pydicom.dcmread(BytesIO(data), force=True)
    for _ in range(random.integers(1, 4)):
        vr = str(random.choice(list(FIELDS)))
        keyword = str(random.choice(FIELDS[vr]))
        if random.integers(6) == 0:
            dataset.pop(pydicom.tag.Tag(keyword), None)
        elif vr == "US":
            dataset.add_new(keyword, vr, int(random.choice(NUMBERS)))
        else:
            dataset.add_new(keyword, vr, str(random.choice(TEXTS)))
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        if random.integers(8) == 0:
            numbers = [int(number) for number in random.choice(NUMBERS, 3)]
            table = lut(np.arange(random.integers(1, 300)), 0, 8, packed=bool(random.integers(2)))
            table.add_new("LUTDescriptor", "US", numbers)
            setattr(dataset, sequence, [table])
    if random.integers(6) == 0:
        dataset.file_meta.TransferSyntaxUID = uid.UID(str(random.choice(SYNTAXES)))
    target = BytesIO()
    implicit = dataset.original_encoding[0]
    dataset.save_as(target, implicit_vr=implicit, little_endian=dataset.original_encoding[1])
    return target.getvalue()


def case(number: int, files: list[Seed]) -> bytes:
    """The bytes of a case; the same for the same number."""
    random = np.random.default_rng(number)
    seed = files[random.integers(len(files))]
    if seed.frame and random.integers(2):  # within the code stream of an intact file
        frame = seed.frame
        for _ in range(random.integers(1, 3)):
            change = random.integers(6)
            if change == 0:
                frame = _cut(frame, random) + (b"\xff\xd9" if random.integers(2) else b"")
            elif change == 1:
                frame = _moved(frame, random)
            else:
                frame = _bytes(frame, random, 160 if change < 4 else None)
            if len(frame) < 2:
                frame = b"\xff\xd9"
        return syntaxes.encapsulated(seed.source, frame, seed.syntax)
    data = seed.data
    for _ in range(random.integers(1, 3)):
        change = random.integers(7)
        if change == 0:
            data = _cut(data, random)
        elif change == 1:
            data = _moved(data, random)
        elif change == 2:
            other = files[random.integers(len(files))].data
            data = data[: random.integers(len(data))] + other[random.integers(len(other)) :]
        elif change < 5 and data[128:132] == b"DICM":
            try:
                data = _fields(data, random)
            except Exception:  # pydicom cannot write, or no longer read, what was made of it
                data = _bytes(data, random)
        else:
            data = _bytes(data, random, 1000 if change == 5 else None)
        if not data:
            break
    return data


# runs


@dataclass
class Report:
    """What came of the cases of a process, or of all."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    slowest_case: int = -1
    growth_mb: float = 0.0
    peak_mb: float = 0.0

    def add(self, other: Report) -> None:
        self.cases += other.cases
        self.outcomes.update(other.outcomes)
        self.faults += other.faults
        if other.slowest_seconds > self.slowest_seconds:
            self.slowest_seconds, self.slowest_case = other.slowest_seconds, other.slowest_case
        self.growth_mb = max(self.growth_mb, other.growth_mb)
        self.peak_mb = max(self.peak_mb, other.peak_mb)


def outcome_of(data: bytes) -> str:
    """Decode and crop; the code of the refusal, or "decoded". Raises what must not be raised."""
    try:
        pixels, facts = decode(data, MAX_PIXELS)
        assert pixels.ndim == 2
        assert pixels.dtype in (np.uint8, np.uint16)
        assert pixels.shape == (facts.rows, facts.columns)
        breast, crop, _ = crop_breast(pixels, SIZE)
        assert breast.shape == (SIZE.height, SIZE.width)
        assert 0 <= crop.left < crop.left + crop.width <= pixels.shape[1]
        assert 0 <= crop.top < crop.top + crop.height <= pixels.shape[0]
        reduced = decode_reduced(data, MAX_PIXELS, COARSE)
        assert reduced.facts == facts
        assert reduced.pixels.dtype == pixels.dtype
        assert reduced.pixels.shape == tuple(-(-side // reduced.shrink) for side in pixels.shape)
    except Refusal as refusal:
        return PROBLEMS[refusal.code] and refusal.code
    return "decoded"


def run_piece(first: int, count: int, progress: Callable[[int], Any]) -> Report:
    """Run the cases in this process; ``progress`` is told of each before it starts."""
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    files, report = seeds(), Report()
    settled = 0.0
    for number in range(first, first + count):
        progress(number)
        data = case(number, files)
        start = time.perf_counter()
        try:
            outcome = outcome_of(data)
        except Exception:
            outcome = "fault"
            report.faults.append(f"case {number}: {traceback.format_exc(limit=-3)}")
        seconds = time.perf_counter() - start
        report.cases += 1
        report.outcomes[outcome] += 1
        if seconds > report.slowest_seconds:
            report.slowest_seconds, report.slowest_case = seconds, number
        if number == first + int(WARMED_UP * count):
            settled = _resident_mb()
    report.growth_mb = _resident_mb() - settled
    report.peak_mb = _status_mb("VmHWM")
    return report


def _resident_mb() -> float:
    return _status_mb("VmRSS")


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def run(first: int, count: int, piece: int = PIECE) -> Report:
    """Run the cases in processes of ``piece`` cases each, one after the other."""
    total, end = Report(), first + count
    with tempfile.TemporaryDirectory() as folder:
        reached = Path(folder, "reached")
        while first < end:
            size = min(piece, end - first)
            command = [sys.executable, "-m", "tests.fuzz_decode", "--first", str(first)]
            command += ["--cases", str(size), "--piece-of", str(reached)]
            process = subprocess.run(command, capture_output=True, text=True, check=False)
            if process.returncode > 0:
                raise RuntimeError(process.stderr)
            if process.returncode == 0:
                answer = json.loads(process.stdout.splitlines()[-1])
                total.add(Report(**answer | {"outcomes": Counter(answer["outcomes"])}))
                first += size
            else:
                died_at = int(reached.read_text())
                total.cases += died_at + 1 - first
                total.outcomes["died"] += 1
                total.faults.append(f"case {died_at}: died by signal {-process.returncode}")
                first = died_at + 1
            print(f"{total.cases} cases", file=sys.stderr, flush=True)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seconds", type=float, default=5.0, help="longest that a case may take")
    parser.add_argument("--megabytes", type=float, default=64.0, help="most a process may grow")
    parser.add_argument("--write", type=Path, help="write the first case to a file, and end")
    parser.add_argument("--piece-of", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.write:
        asked.write.write_bytes(case(asked.first, seeds()))
        return 0
    if asked.piece_of:
        place = os.open(asked.piece_of, os.O_WRONLY | os.O_CREAT)
        piece = run_piece(
            asked.first, asked.cases, lambda number: os.pwrite(place, b"%12d" % number, 0)
        )
        print(json.dumps(vars(piece)))
        return 0
    start = time.perf_counter()
    report = run(asked.first, asked.cases)
    for fault in report.faults:
        print(fault)
    print(f"{report.cases} cases in {time.perf_counter() - start:.0f} s")
    for outcome, cases in report.outcomes.most_common():
        print(f"  {outcome:28}{cases:9}")
    print(f"slowest case: {report.slowest_seconds:.2f} s (case {report.slowest_case})")
    print(f"memory of a process: peak {report.peak_mb:.0f} MB, grown by {report.growth_mb:.0f} MB")
    failed = bool(report.faults) or report.slowest_seconds > asked.seconds
    return int(failed or report.growth_mb > asked.megabytes)


if __name__ == "__main__":
    sys.exit(main())
