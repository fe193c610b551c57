"""DICOM bytes -> grey pixels as presented, and what the header knows of the exam.

pydicom reads the header here; the modules ``stored``, ``presentation`` and ``header`` do the rest.
"""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import _read_file_meta_info, read_partial
from pydicom.tag import BaseTag

from app.imaging.facts import ImageFacts
from app.imaging.header import Unusual, facts_of, refuse_unless_mammogram
from app.imaging.memory_file import memory_file
from app.imaging.presentation import grey_ramp, presented, reduced
from app.imaging.stored import Stored, stored_values
from app.imaging.wavelet import Words
from app.problems import Refusal

# pydicom quotes header values in warnings and logs: they may name a patient
warnings.filterwarnings("ignore", module=r"pydicom\..*")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_MOST_ELEMENTS = 20_000  # a mammogram has about a hundred, with private ones a few hundred


def looks_like_dicom(data: bytes) -> bool:
    """Whether the 128-byte preamble is followed by the DICOM prefix (PS3.10 7.1)."""
    return data[128:132] == b"DICM"


def open_dicom(
    data: bytes, max_pixels: int, accept: frozenset[Unusual]
) -> tuple[ImageFacts, Callable[[int], Words]]:
    """What is known of a single-frame grey image, and its greys, bright is dense, uint8 or uint16
    [rows, columns], at 1 / 1, 2, 4 or 8 of its size.

    The size is read from the header before pixels are touched. Both raise ``Refusal``:
    ``broken_image``, ``too_many_pixels``, ``several_frames``, ``unsupported_transfer_syntax``,
    ``unsupported_photometric``, ``unsupported_depth``, ``no_pixels``.
    """
    dataset = read_dataset(data, max_pixels)
    with _refused():
        refuse_unless_mammogram(dataset, accept)
        rows, columns = _check_geometry(dataset, max_pixels)
        facts = facts_of(dataset, rows, columns)
    whole: list[Stored] = []

    def greys(shrink: int) -> Words:
        with _refused():
            ramp = grey_ramp(dataset)
            halvings = shrink.bit_length() - 1 if ramp.keeps_order else 0
            stored = whole[0] if whole else stored_values(dataset, rows, columns, halvings)
            if not stored.halved:
                whole[:] = [stored]
            return presented(stored, dataset) if shrink == 1 else reduced(stored, ramp, shrink)

    return facts, greys


@contextmanager
def _refused() -> Iterator[None]:
    """Codecs and pydicom raise whatever a broken file leads them to."""
    try:
        yield
    except (Refusal, MemoryError):
        raise
    except Exception:
        raise Refusal("broken_image", "The DICOM image cannot be decoded.") from None


def read_dataset(data: bytes, max_pixels: int) -> FileDataset:
    """Read the header and the undecoded pixel data. Raises ``Refusal``: ``broken_image``,
    ``too_many_pixels`` for a deflated file that inflates beyond the limit."""
    try:
        _check_inflated_size(data, max_pixels)
        return read_partial(memory_file(data), _limited())
    except (Refusal, MemoryError):
        raise
    except Exception:  # as above
        raise Refusal("broken_image", "The DICOM header cannot be read.") from None


def _limited() -> Callable[[BaseTag, str | None, int], bool]:
    """Looks at each element as it is read: a file of a million empty ones takes seconds."""
    elements = count(1)

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        if next(elements) > _MOST_ELEMENTS:
            raise Refusal("broken_image", "The DICOM header has more elements than any has.")
        return False

    return stop


def read_header(data: bytes) -> Dataset:
    """The header, without pixels, of a file that ``decode_dicom`` has read."""
    return pydicom.dcmread(memory_file(data), stop_before_pixels=True)


def _check_inflated_size(data: bytes, max_pixels: int) -> None:
    """Refuse a deflate bomb before pydicom inflates it whole."""
    stream = memory_file(data)
    stream.seek(132)  # preamble and prefix
    meta = _read_file_meta_info(stream)
    if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
        return
    limit = 2 * max_pixels + (16 << 20)
    rest = data[stream.tell() :]
    if len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(rest, limit)) >= limit:
        raise Refusal("too_many_pixels", "The deflated DICOM file inflates beyond the limit.")


def _check_geometry(dataset: FileDataset, max_pixels: int) -> tuple[int, int]:
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames") or 1)
        samples = int(dataset.get("SamplesPerPixel", 1))
        photometric = dataset.get("PhotometricInterpretation")
        allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    except Exception:  # what is missing or malformed, as above
        raise Refusal("no_pixels", "The DICOM file describes no image.") from None
    if "PixelData" not in dataset or rows < 1 or columns < 1:
        raise Refusal("no_pixels", "The DICOM file holds no pixel data.")
    if frames != 1:
        raise Refusal("several_frames", "The DICOM file holds more than one frame.")
    if rows * columns > max_pixels:
        raise Refusal(
            "too_many_pixels",
            f"The image has {rows} x {columns} pixels; at most {max_pixels} are accepted.",
        )
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refusal("unsupported_photometric", "Only MONOCHROME1 and MONOCHROME2 are accepted.")
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise Refusal("unsupported_depth", "Only 8 and 16 allocated bits are accepted.")
    return rows, columns
