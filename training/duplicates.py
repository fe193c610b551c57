"""Near duplicates: images of a set that show the same thing, though their files differ.

A perceptual hash finds candidates cheaply; the correlation of their local contrast decides. The
plain correlation of two thumbnails does not do for mammograms: whatever the tissue, two breasts of
one outline on black correlate above .97, while two frames of one ultrasound lesion, a few pixels
apart, can stay below .92.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HASH_DISTANCE = 10  # of 64 bits: more apart than this is not looked at further
NEAR_DUPLICATE = 0.65  # correlation of local contrast from which a pair is called a near duplicate
# From which two images stay on one side of a split where no patients are known: keeping too much
# together costs nothing, while calling too much a duplicate would.
SAME_SIDE = 0.5

_HASHED_SIDE = 32
_HASH_SIDE = 8
_SIDE = 64
_BLUR = 2.0  # pixels of the 64 x 64 thumbnail
_NOISE = 4.0  # grey levels of 255: contrast below this counts little
_BLOCK = 1024


@dataclass(frozen=True)
class Look:
    """What an image is compared by.

    ``sha256`` of the file; ``hash`` of the picture, 64 bits; ``contrast`` float32 [4096], of length
    1, or 0 where nothing is to be seen.
    """

    sha256: str
    hash: int
    contrast: NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two images, by index, ``first < second``; ``identical`` byte by byte."""

    first: int
    second: int
    correlation: float
    identical: bool


def look_at(data: bytes, pixels: NDArray[Any] | None) -> Look:
    """Look at a file and its pixels, uint8 or uint16 [rows, columns]; None if it has none that can
    be read: then only a copy of the file is its duplicate."""
    digest = hashlib.sha256(data).hexdigest()
    if pixels is None:
        return Look(digest, 0, np.zeros(_SIDE**2, np.float32))
    grey = (255.0 / max(int(pixels.max()), 1)) * thumbnail(pixels, _SIDE)
    return Look(digest, _perceptual_hash(grey), _local_contrast(grey))


def thumbnail(pixels: NDArray[Any], side: int) -> NDArray[np.float32]:
    """Shrink to a square, float32 [side, side]; the ratio of the sides is lost."""
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _perceptual_hash(grey: NDArray[np.float32]) -> int:
    """The signs of the lowest frequencies of the picture's cosine transform against their median
    (pHash; Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010)."""
    low = dctn(thumbnail(grey, _HASHED_SIDE), norm="ortho")[:_HASH_SIDE, :_HASH_SIDE]
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _local_contrast(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every pixel against its surroundings, in units of their spread: an outline then weighs no
    more than the texture."""
    away = grey - cv2.GaussianBlur(grey, (0, 0), _BLUR)
    spread = np.sqrt(cv2.GaussianBlur(away**2, (0, 0), _BLUR))
    contrast = (away / (spread + _NOISE)).ravel()
    contrast -= contrast.mean()
    length = float(np.linalg.norm(contrast))
    return np.asarray(contrast / length if length > 1e-3 else 0 * contrast, np.float32)


def near_duplicates(looks: Sequence[Look], alike: float = NEAR_DUPLICATE) -> list[Pair]:
    """Every pair of images that are copies or correlate at least by ``alike``, in order.

    Finds resized, recompressed, rescaled in grey and slightly shifted copies; not mirrored, rotated
    or inverted ones.
    """
    hashes = np.array([look.hash for look in looks], np.uint64)
    _, file = np.unique([look.sha256 for look in looks], return_inverse=True)
    pairs: list[Pair] = []
    for start in range(0, len(looks), _BLOCK):
        block = slice(start, start + _BLOCK)
        close = np.bitwise_count(hashes[block, None] ^ hashes[None, :]) <= HASH_DISTANCE
        close |= file[block, None] == file[None, :]
        for row, second in zip(*np.nonzero(close), strict=True):
            first = start + int(row)
            if first < second:
                identical = bool(file[first] == file[second])
                correlation = float(looks[first].contrast @ looks[second].contrast)
                if identical or correlation >= alike:
                    pairs.append(Pair(first, int(second), correlation, identical))
    return pairs


def groups(count: int, pairs: Sequence[Pair]) -> NDArray[np.int32]:
    """Number of the group of each of ``count`` images, int32 [count]: images that a chain of pairs
    connects are one group."""
    first, second = [pair.first for pair in pairs], [pair.second for pair in pairs]
    links = coo_array((np.ones(len(pairs)), (first, second)), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int32)


def group_names(looks: Sequence[Look]) -> list[str]:
    """A name of each image's group, made of the content of the group's images: what stands for the
    patient where none is known."""
    group = groups(len(looks), near_duplicates(looks, SAME_SIDE))
    names: dict[int, str] = {}
    for number, look in zip(group.tolist(), looks, strict=True):
        names[number] = min(names.get(number, look.sha256), look.sha256)
    return [names[number][:16] for number in group.tolist()]
