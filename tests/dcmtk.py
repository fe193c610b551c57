"""dcmtk, the independent toolkit: converts files, and shows what pixels should be."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.real_parts import require


def converted(program: str, data: bytes, *options: str) -> bytes:
    """The file that a program such as ``dcmcjpeg`` makes of a file."""
    command = [require(program), *options]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        source.write_bytes(data)
        subprocess.run([*command, str(source), str(target)], check=True, capture_output=True)
        return target.read_bytes()


def shown_by_dcmtk(data: bytes, *options: str) -> NDArray[np.uint16]:
    """The picture, uint16 [rows, columns], that dcm2pnm makes of a file."""
    png = converted("dcm2pnm", data, "+on2", *options)
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert pixels.dtype == np.uint16
    return np.asarray(pixels, np.uint16)
