"""Other makers' judgement of what is written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.real_parts import require

# What dciodvfy warns of in files that are right
_KNOWN = (
    r"Unrecognized defined term = <99MAMMOSEQ>",  # a private scheme is unknown by nature
    r"Retired Person Name form",  # the patient's name as the images have it
    r"Missing attribute or value that would be needed to build DICOMDIR",  # as in the images
    r"LossyImageCompressionMethod.* method inconsistent with Transfer Syntax",  # a history
)


def dciodvfy(data: bytes, folder: Path) -> list[str]:
    """Errors that dciodvfy finds, and warnings of other kinds than those known."""
    printed = _run("dciodvfy", "-new", data=data, folder=folder)
    assert re.search(r"^(Comprehensive3DSR|SCImage|Segmentation)$", printed, re.M), printed
    return [
        line
        for line in printed.splitlines()
        if line.startswith(("Error", "Warning", "Abort")) and not re.search("|".join(_KNOWN), line)
    ]


def dsrdump(data: bytes, folder: Path) -> str:
    """The report as dcmtk prints it, every text whole and every code with its value."""
    return _run("dsrdump", "+Pl", "+Pc", data=data, folder=folder)


def _run(program: str, *options: str, data: bytes, folder: Path) -> str:
    file = folder / "written.dcm"
    file.write_bytes(data)
    done = subprocess.run(
        [require(program), *options, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.stdout.decode(errors="replace")
