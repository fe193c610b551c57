"""Near duplicates: what shows the same is found, what only looks alike is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.imaging.decode import decode
from tests.pictures import breast, encoded, pixels_of, png, real_dicom, sixteen_bit
from training.duplicates import (
    NEAR_DUPLICATE,
    Look,
    Pair,
    group_names,
    groups,
    look_at,
    near_duplicates,
)

PICTURE = breast(600, 400, seed=1, spots=((300, 120),))


def look(pixels: NDArray[Any]) -> Look:
    return look_at(png(pixels), pixels)


def shifted(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.roll(pixels, 4, axis=0)


def smaller(pixels: NDArray[Any]) -> NDArray[Any]:
    return cv2.resize(pixels, (240, 320), interpolation=cv2.INTER_AREA)


def recompressed(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels_of(encoded(".jpg", pixels))


def darker(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(pixels // 2, np.uint8)


@pytest.mark.parametrize(
    "changed", [shifted, smaller, recompressed, darker, sixteen_bit], ids=lambda f: f.__name__
)
def test_changed_copy_is_a_near_duplicate(
    changed: Callable[[NDArray[Any]], NDArray[Any]],
) -> None:
    (pair,) = near_duplicates([look(PICTURE), look(changed(PICTURE))])
    assert (pair.first, pair.second, pair.identical) == (0, 1, False)
    assert pair.correlation > NEAR_DUPLICATE


def test_copy_of_a_file_is_identical_also_when_it_cannot_be_read() -> None:
    looks = [look_at(b"torn", None), look(PICTURE), look_at(b"torn", None), look_at(b"x", None)]
    assert near_duplicates(looks) == [Pair(0, 2, 0.0, True)]


def test_breasts_of_one_outline_are_no_duplicates() -> None:
    """Though their thumbnails correlate as duplicates' would."""
    breasts = [breast(600, 400, seed=seed) for seed in range(8)]
    small = np.stack([cv2.resize(b, (64, 64), interpolation=cv2.INTER_AREA) for b in breasts])
    assert np.corrcoef(small.reshape(8, -1)).min() > 0.97
    assert near_duplicates([look(pixels) for pixels in breasts]) == []


def test_blank_images_are_no_duplicates_of_each_other() -> None:
    blanks = [np.zeros((50, 40), np.uint8), np.full((60, 60), 255, np.uint8)]
    assert near_duplicates([look(pixels) for pixels in blanks]) == []


def test_encodings_of_one_mammogram_are_near_duplicates() -> None:
    files = [real_dicom("rle"), real_dicom("j2k_lossless"), real_dicom("deflated")]
    looks = [look_at(data, decode(data, 10**9)[0]) for data in files]
    pairs = near_duplicates(looks)
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (0, 2), (1, 2)]
    assert not any(pair.identical for pair in pairs)


def test_pairs_beyond_one_block_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [look(breast(300, 200, seed=seed)) for seed in range(7)]
    looks += [looks[1], looks[6]]
    expected = [(1, 7), (6, 8)]
    for block in (1, 3, 1024):
        monkeypatch.setattr("training.duplicates._BLOCK", block)
        assert [(pair.first, pair.second) for pair in near_duplicates(looks)] == expected


def test_a_chain_of_pairs_is_one_group() -> None:
    pairs = [Pair(0, 3, 0.9, False), Pair(3, 4, 0.9, False), Pair(1, 2, 1.0, True)]
    found = groups(6, pairs)
    assert len(set(found.tolist())) == 3
    assert found[0] == found[3] == found[4]
    assert found[1] == found[2]


def test_name_of_a_group_is_of_its_content_whatever_the_order() -> None:
    looks = [look(PICTURE), look(breast(600, 400, seed=2)), look(shifted(PICTURE))]
    names = group_names(looks)
    assert names[0] == names[2] != names[1]
    assert group_names(looks[::-1]) == names[::-1]
