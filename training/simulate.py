"""Longitudinal mammogram series with known truth, made from one lesion-free mammogram.

A mass is blended into glandular tissue of a model-input breast (uint8 [H, W], cropped to the
breast, chest wall at the left edge, background 0) once per exam, at the diameter it has on that
day; then every exam gets an acquisition change of its own. Growing and stable series differ in the
diameters before the last exam and in nothing else: for one seed the last exam, the days and all
acquisition changes are the same, so only the change over time can tell the two apart.

Growth is exponential in volume: a diameter grows by ``2 ** (days / (3 * doubling_days))``. Volume
doubling times of invasive cancers seen on serial mammograms are close to log-normal:

- Peer et al., Cancer 1993;71:3547-51: median 80 days below age 50, 157 at 50 to 70, 188 above 70.
- Weedon-Fekjaer et al., Breast Cancer Res 2008;10:R41: 1.7 years on average from 10 to 20 mm, three
  doublings, hence about 207 days; wide variation between tumours.
- Fornvik et al., Radiat Prot Dosimetry 2016;169:151-7: median 282 days, range 46 to 749.

Contrast, margin, spiculation and acquisition ranges are our choice, made by eye, not measured.
"""

import csv
import gzip
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

# A breast's bounding box is taken as 180 mm high, hence 2.84 px/mm at 512 rows. The true height is
# lost with the crop; horizontally the same figure is close enough.
BREAST_HEIGHT_MM = 180.0

INTERVAL_DAYS = (90, 1500)  # below: work-up of one finding; above: lapsed attendance
MISSING_EXAM_PROBABILITY = 0.15

FINAL_DIAMETER_MM = (6.0, 18.0)
VISIBLE_DIAMETER_MM = 3.0  # a smaller mass is not drawn
# Grey level added at the centre of a 10 mm mass, as a part of the spread between fat and gland in
# that image (5th to 95th percentile, kept within the limits below): windowing stretches both alike.
CONTRAST_AT_10_MM = (0.35, 0.65)
TISSUE_SPREAD_GREY = (40.0, 110.0)
DOUBLING_DAYS_MEDIAN = 210.0
DOUBLING_DAYS_LOG_SD = 0.65
DOUBLING_DAYS_RANGE = (46.0, 749.0)  # Fornvik 2016

SHIFT_MM = 3.0  # these are half-widths of uniform distributions around no change
ROTATION_DEGREES = 4.0
SCALE_LOG = 0.05
ASPECT_LOG = 0.03
GAIN_LOG = 0.10
GAMMA_LOG = 0.16
NOISE_GREY = (1.0, 3.5)  # standard deviation at grey level 128

# Masses stay this far from the borders, so that no acquisition change moves one out of the frame.
SKIN_MARGIN_MM = 6.0
FRAME_MARGIN_MM = 15.0
BACKGROUND_GREY = 10

TEMPLATE_PX = 129
TEMPLATE_RADII = 2.4  # half the template's side, in radii of the mass


@dataclass(frozen=True)
class SimulatedSeries:
    """One patient's exams of one view, oldest first, with the truth about its mass.

    ``lesion_px`` is where the centre of the mass lies in each exam, also where it is too small to
    be drawn (``diameters_mm`` below `VISIBLE_DIAMETER_MM`).
    """

    images: NDArray[np.uint8]  # [exams, H, W]
    days: tuple[int, ...]  # since the first exam
    growing: bool
    lesion_px: NDArray[np.float32]  # [exams, 2], (row, column)
    diameters_mm: tuple[float, ...]


@dataclass(frozen=True)
class Lesion:
    """A mass without its size: what keeps its identity while it grows."""

    template: NDArray[np.float32]  # [TEMPLATE_PX, TEMPLATE_PX], 0 outside to about 1 at the centre
    row: int
    column: int
    contrast_per_mm: float  # grey levels per mm of diameter: a projection sums along the thickness


def read_intervals(path: Path) -> NDArray[np.int64]:
    """Days between consecutive mammography dates of one patient, in ascending order.

    `path` is a (gzipped) csv with one row per DICOM series and the columns ``PatientID`` and
    ``StudyDate`` (ISO 8601), such as that of ECOG-ACRIN EA1141 (CC BY 4.0) from the index of the
    NCI Imaging Data Commons. Intervals outside `INTERVAL_DAYS` are left out.
    """
    dates: defaultdict[str, set[date]] = defaultdict(set)
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open() as file:
        for row in csv.DictReader(file):
            dates[row["PatientID"]].add(date.fromisoformat(row["StudyDate"]))
    days = [(b - a).days for seen in dates.values() for a, b in pairwise(sorted(seen))]
    shortest, longest = INTERVAL_DAYS
    return np.array(sorted(d for d in days if shortest <= d <= longest), dtype=np.int64)


def simulate_series(
    image: NDArray[np.uint8],
    *,
    growing: bool,
    exams: int,
    intervals: NDArray[np.int64],
    rng: np.random.Generator,
) -> SimulatedSeries:
    """Make `exams` exams of the lesion-free breast `image` (uint8 [H, W]), with one mass.

    `intervals` are the days between exams to draw from (`read_intervals`).
    """
    if exams < 1:
        raise ValueError(f"a series needs at least one exam, not {exams}")
    # `growing` consumes no random numbers, so that both kinds share everything but the diameters.
    days = _draw_days(exams, intervals, rng)
    final_diameter_mm = float(rng.uniform(*FINAL_DIAMETER_MM))
    doubling_days = _draw_doubling_days(rng)
    lesion = draw_lesion(image, final_diameter_mm, rng)

    growth_days = 3.0 * doubling_days if growing else np.inf
    diameters_mm = tuple(final_diameter_mm * 2.0 ** ((d - days[-1]) / growth_days) for d in days)
    acquired = [acquire(insert_lesion(image, lesion, d), rng) for d in diameters_mm]

    centre = np.array([lesion.column, lesion.row, 1.0])
    xy = np.stack([matrix @ centre for _, matrix in acquired])  # [exams, 2]
    return SimulatedSeries(
        images=np.stack([exam for exam, _ in acquired]),
        days=days,
        growing=growing,
        lesion_px=xy[:, ::-1].astype(np.float32),
        diameters_mm=diameters_mm,
    )


def acquire(
    image: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Take the same breast again: new position, compression, exposure and noise.

    Returns the exam (uint8 [H, W]) and the affine matrix [2, 3] that takes (column, row, 1) of
    `image` to (column, row) of the exam.
    """
    matrix = _draw_positioning(image.shape, rng)
    height, width = image.shape
    # Tissue goes on beyond the chest wall and its mirror image is the best guess there; what enters
    # from the other sides is background, even where nipple or axilla touch the frame.
    margin = width // 8
    padded = cv2.copyMakeBorder(image, 0, 0, margin, 0, cv2.BORDER_REFLECT_101)
    from_padded = matrix.copy()
    from_padded[:, 2] -= margin * matrix[:, 0]
    moved = cv2.warpAffine(padded, from_padded, (width, height), flags=cv2.INTER_LINEAR)
    return _expose(moved.astype(np.uint8, copy=False), rng), matrix


def draw_lesion(image: NDArray[np.uint8], diameter_mm: float, rng: np.random.Generator) -> Lesion:
    """Draw a mass, and a place in the breast `image` (uint8 [H, W]) with room for `diameter_mm`."""
    blurred = cv2.GaussianBlur(image, (0, 0), 1.5 * _px_per_mm(image.shape))
    local_mean = blurred.astype(np.uint8, copy=False)
    skin_distance = cv2.distanceTransform(
        (local_mean > BACKGROUND_GREY).astype(np.uint8), cv2.DIST_L2, 3
    ).astype(np.float32, copy=False)
    row, column = _draw_place(local_mean, skin_distance, diameter_mm, rng)
    contrast = rng.uniform(*CONTRAST_AT_10_MM) * _tissue_spread(local_mean, skin_distance)
    return Lesion(_draw_template(rng), row, column, contrast_per_mm=float(contrast) / 10.0)


def insert_lesion(
    image: NDArray[np.uint8], lesion: Lesion, diameter_mm: float
) -> NDArray[np.uint8]:
    """Blend `lesion` at `diameter_mm` into a copy of `image`, unless too small to be seen."""
    exam = image.copy()
    if diameter_mm < VISIBLE_DIAMETER_MM:
        return exam
    profile = _scale_template(lesion.template, diameter_mm * _px_per_mm(image.shape) / 2.0)
    rows, inside_rows = _overlap(lesion.row, profile.shape[0], image.shape[0])
    columns, inside_columns = _overlap(lesion.column, profile.shape[1], image.shape[1])
    profile = profile[inside_rows, inside_columns]

    tissue = exam[rows, columns].astype(np.float32)
    # A mass pushes tissue aside: the pattern below it shows through only in part.
    smooth = cv2.GaussianBlur(tissue, (0, 0), profile.shape[0] / 12.0)
    below = tissue + 0.5 * np.clip(profile, 0.0, 1.0) * (smooth - tissue)
    headroom = np.clip((255.0 - below) / 60.0, 0.0, 1.0)  # dense tissue saturates slowly
    seen = below + lesion.contrast_per_mm * diameter_mm * headroom * profile
    breast = tissue > BACKGROUND_GREY
    exam[rows, columns] = np.where(breast, np.clip(np.rint(seen), 0, 255), tissue)
    return exam


def _px_per_mm(shape: tuple[int, ...]) -> float:
    return shape[0] / BREAST_HEIGHT_MM


def _draw_days(
    exams: int, intervals: NDArray[np.int64], rng: np.random.Generator
) -> tuple[int, ...]:
    """Days since the first exam; a missing exam makes one interval of two."""
    drawn = rng.choice(intervals, size=(exams - 1, 2))
    missing = rng.random(exams - 1) < MISSING_EXAM_PROBABILITY
    steps = drawn[:, 0] + np.where(missing, drawn[:, 1], 0)
    return (0, *(int(day) for day in np.cumsum(steps)))


def _draw_doubling_days(rng: np.random.Generator) -> float:
    drawn = rng.lognormal(np.log(DOUBLING_DAYS_MEDIAN), DOUBLING_DAYS_LOG_SD)
    return float(np.clip(drawn, *DOUBLING_DAYS_RANGE))


def _tissue_spread(local_mean: NDArray[np.uint8], skin_distance: NDArray[np.float32]) -> float:
    """Grey levels between fat and gland, leaving out the skin and the thin rim."""
    inside = local_mean[skin_distance > SKIN_MARGIN_MM * _px_per_mm(local_mean.shape)]
    low, high = np.percentile(inside, (5, 95)) if inside.size else (0.0, 0.0)
    return float(np.clip(high - low, *TISSUE_SPREAD_GREY))


def _draw_place(
    local_mean: NDArray[np.uint8],
    skin_distance: NDArray[np.float32],
    diameter_mm: float,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Row and column of a glandular pixel, away from skin, frame and pectoral muscle."""
    height, width = local_mean.shape
    px_per_mm = _px_per_mm(local_mean.shape)
    allowed = skin_distance > (SKIN_MARGIN_MM + 0.65 * diameter_mm) * px_per_mm
    frame = round(FRAME_MARGIN_MM * px_per_mm)
    allowed[:frame] = allowed[-frame:] = False
    allowed[:, :frame] = allowed[:, -frame:] = False
    allowed &= ~_pectoral_corner(height, width)
    # One draw whatever the image, so that the generator's state does not depend on it.
    chance = rng.random()
    if not allowed.any():
        deepest = int(np.argmax(skin_distance))
        return deepest // width, deepest % width
    # Bright is glandular; the very brightest is calcified, muscle or saturated.
    low, high = np.percentile(local_mean[allowed], (70, 97))
    places = np.flatnonzero(allowed & (local_mean >= low) & (local_mean <= high))
    place = int(places[int(chance * places.size)])
    return place // width, place % width


def _pectoral_corner(height: int, width: int) -> NDArray[np.bool_]:
    """Upper chest-wall corner, where oblique views show the muscle."""
    rows = np.arange(height, dtype=np.float32)[:, None] / (0.6 * height)
    columns = np.arange(width, dtype=np.float32)[None, :] / (0.5 * width)
    corner: NDArray[np.bool_] = rows + columns < 1.0
    return corner


def _draw_template(rng: np.random.Generator) -> NDArray[np.float32]:
    """Projection of a mass of radius 1: lobulated body, spicules, texture of its own."""
    axis = np.linspace(-TEMPLATE_RADII, TEMPLATE_RADII, TEMPLATE_PX, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    body = _draw_body(x, y, rng)
    spicules = _draw_spicules(x, y, rng)
    # Spicules outside, body inside; the texture mottles both.
    mass = (body + spicules * (1.0 - body)) * _draw_texture(rng)
    # The margin is drawn too: from nearly circumscribed to indistinct.
    margin_px = float(rng.uniform(0.05, 0.14)) * TEMPLATE_PX / (2.0 * TEMPLATE_RADII)
    return cv2.GaussianBlur(mass, (0, 0), margin_px).astype(np.float32, copy=False)


def _draw_body(
    x: NDArray[np.float32], y: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Thickness along the ray of an irregular, roughly ellipsoidal body."""
    orders = np.arange(2, 10)
    amplitudes = rng.normal(0.0, 0.20, orders.size) / orders**0.8
    phases = rng.uniform(0.0, 2.0 * np.pi, orders.size)
    angles = np.linspace(-np.pi, np.pi, 256)
    waves = amplitudes[:, None] * np.cos(orders[:, None] * angles + phases[:, None])
    radii = np.clip(1.0 + waves.sum(axis=0), 0.6, 1.4)
    # Scaled to the area of a disc, so that the diameter means the same for every shape.
    radii /= np.sqrt(np.mean(radii**2))
    outline = np.interp(np.arctan2(y, x), angles, radii)
    fullness = float(rng.uniform(0.5, 0.9))
    thickness = np.power(np.clip(1.0 - (x**2 + y**2) / outline**2, 0.0, 1.0), fullness)
    return np.asarray(thickness, dtype=np.float32)


def _draw_spicules(
    x: NDArray[np.float32], y: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Fine bent strands from the body outwards; their prominence goes down to none at all."""
    count = 14
    prominence = float(rng.uniform(0.0, 0.45))
    angles = rng.uniform(0.0, 2.0 * np.pi, count).astype(np.float32)
    lengths = rng.uniform(1.2, 2.2, count).astype(np.float32)
    widths = rng.uniform(0.04, 0.09, count).astype(np.float32)
    bends = rng.normal(0.0, 0.12, count).astype(np.float32)
    spicules = np.zeros((y.size, x.size), dtype=np.float32)
    for angle, length, width, bend in zip(angles, lengths, widths, bends, strict=True):
        along = x * np.cos(angle) + y * np.sin(angle)
        across = y * np.cos(angle) - x * np.sin(angle) - bend * along**2
        fade = np.clip(1.0 - along / length, 0.0, 1.0) * (along > 0.0)
        np.maximum(spicules, fade * np.exp(-0.5 * (across / width) ** 2), out=spicules)
    return prominence * spicules


def _draw_texture(rng: np.random.Generator) -> NDArray[np.float32]:
    """Multiplicative mottle around 1, coarse and fine."""
    texture: NDArray[np.float32] = np.ones((TEMPLATE_PX, TEMPLATE_PX), dtype=np.float32)
    for cells, strength in ((9, 0.18), (25, 0.12)):
        grains = rng.standard_normal((cells, cells), dtype=np.float32)
        mottle = cv2.resize(grains, (TEMPLATE_PX, TEMPLATE_PX), interpolation=cv2.INTER_CUBIC)
        texture += strength * mottle.astype(np.float32, copy=False)
    np.clip(texture, 0.3, 1.7, out=texture)
    return texture


def _scale_template(template: NDArray[np.float32], radius_px: float) -> NDArray[np.float32]:
    """The template for a mass of `radius_px`, float32 [side, side] with an odd side.

    The scale is exact; only the side is rounded (up).
    """
    scale = radius_px * 2.0 * TEMPLATE_RADII / (TEMPLATE_PX - 1)
    half = int(np.ceil(radius_px * TEMPLATE_RADII))
    offset = half - scale * (TEMPLATE_PX - 1) / 2.0
    matrix = np.array([[scale, 0.0, offset], [0.0, scale, offset]])
    if scale < 1.0:  # against aliasing
        template = cv2.GaussianBlur(template, (0, 0), 0.5 / scale).astype(np.float32, copy=False)
    side = 2 * half + 1
    scaled = cv2.warpAffine(template, matrix, (side, side), flags=cv2.INTER_LINEAR)
    return scaled.astype(np.float32, copy=False)


def _overlap(centre: int, side: int, length: int) -> tuple[slice, slice]:
    """Where a patch of odd `side` lies on an axis of `length`, and which part of it that is."""
    start = centre - side // 2
    stop = start + side
    first, last = max(start, 0), min(stop, length)
    return slice(first, last), slice(first - start, last - start)


def _draw_positioning(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Affine matrix [2, 3]: rotation, scale and compression about the image centre, and shift."""
    height, width = shape
    angle = np.deg2rad(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES))
    scale = np.exp(rng.uniform(-SCALE_LOG, SCALE_LOG))
    aspect = np.exp(rng.uniform(-ASPECT_LOG, ASPECT_LOG))
    shift = rng.uniform(-SHIFT_MM, SHIFT_MM, 2) * _px_per_mm(shape)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.diag([scale * aspect, scale / aspect])
    centre = np.array([width / 2.0, height / 2.0])
    return np.column_stack([linear, centre + shift - linear @ centre])


def _expose(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """New gain and gamma, and noise that grows with the square root of the signal."""
    gain = np.exp(rng.uniform(-GAIN_LOG, GAIN_LOG))
    gamma = np.exp(rng.uniform(-GAMMA_LOG, GAMMA_LOG))
    noise_grey = rng.uniform(*NOISE_GREY)
    grey = np.arange(256) / 255.0
    signal = (255.0 * gain * grey**gamma).astype(np.float32)
    spread = (noise_grey * np.sqrt(signal / 128.0)).astype(np.float32)
    exam = rng.standard_normal(image.shape, dtype=np.float32)
    exam *= spread[image]
    exam += signal[image]
    np.rint(exam, out=exam)
    return np.clip(exam, 0.0, 255.0, out=exam).astype(np.uint8)
