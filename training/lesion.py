"""A mass: drawn once per patient, placed in glandular tissue, blended into an exam at any diameter.

Margin, spiculation, texture and contrast are our choice, made by eye, not measured.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# A breast's bounding box is taken as 180 mm high, hence 2.84 px/mm at 512 rows. The true height is
# lost with the crop; horizontally the same figure is close enough.
BREAST_HEIGHT_MM = 180.0
BACKGROUND_GREY = 10
MASKING_GREY = 200  # brighter tissue would hide a mass from anybody

VISIBLE_DIAMETER_MM = 3.0  # a smaller mass is not drawn
# Grey level added at the centre of a 10 mm mass, as a part of the spread between fat and gland in
# that image (5th to 95th percentile, kept within the limits below): windowing stretches both alike.
CONTRAST_AT_10_MM = (0.5, 0.9)
TISSUE_SPREAD_GREY = (60.0, 80.0)
# A projection sums along the thickness, but compression flattens a large mass more.
CONTRAST_EXPONENT = 0.7

# Masses stay this far from the borders, so that no acquisition change moves one out of the frame.
SKIN_MARGIN_MM = 6.0
FRAME_MARGIN_MM = 15.0

TEMPLATE_PX = 129
TEMPLATE_RADII = 2.4  # half the template's side, in radii of the mass
_FAT = np.ones((9, 9), np.uint8)
_PLACE_STEP = 4  # pixels: places are sought at a quarter of the resolution


@dataclass(frozen=True)
class Lesion:
    """A mass without its size: what keeps its identity while it changes."""

    template: NDArray[np.float32]  # [TEMPLATE_PX, TEMPLATE_PX], 0 outside to about 1 at the centre
    row: int
    column: int
    contrast_at_10_mm: float  # grey levels at the centre

    def contrast(self, diameter_mm: float) -> float:
        """Grey levels that the mass adds at its centre."""
        return float(self.contrast_at_10_mm * (diameter_mm / 10.0) ** CONTRAST_EXPONENT)


def px_per_mm(shape: tuple[int, ...]) -> float:
    """Pixels per millimetre of a breast image of ``shape`` (height first)."""
    return shape[0] / BREAST_HEIGHT_MM


def draw_lesion(image: NDArray[np.uint8], room_mm: float, rng: np.random.Generator) -> Lesion:
    """Draw a mass, and a place in the breast `image` (uint8 [H, W]) with room for a mass of
    `room_mm` in diameter, or the best there is."""
    height, width = image.shape
    coarse = cv2.resize(
        image, (width // _PLACE_STEP, height // _PLACE_STEP), interpolation=cv2.INTER_AREA
    )
    blurred = cv2.GaussianBlur(coarse, (0, 0), 1.5 * px_per_mm(coarse.shape))
    local_mean = blurred.astype(np.uint8, copy=False)
    skin_distance = cv2.distanceTransform(
        (local_mean > BACKGROUND_GREY).astype(np.uint8), cv2.DIST_L2, 3
    ).astype(np.float32, copy=False)
    row, column = _draw_place(local_mean, skin_distance, room_mm, rng)
    off_row, off_column = rng.integers(_PLACE_STEP, size=2)
    contrast = rng.uniform(*CONTRAST_AT_10_MM) * _tissue_spread(local_mean, skin_distance)
    return Lesion(
        _draw_template(rng),
        row * _PLACE_STEP + int(off_row),
        column * _PLACE_STEP + int(off_column),
        contrast_at_10_mm=float(contrast),
    )


def insert_lesion(
    image: NDArray[np.uint8], lesion: Lesion, diameter_mm: float
) -> NDArray[np.uint8]:
    """Blend `lesion` at `diameter_mm` into a copy of `image`, unless too small to be seen."""
    exam = image.copy()
    if diameter_mm < VISIBLE_DIAMETER_MM:
        return exam
    profile = _scale_template(lesion.template, diameter_mm * px_per_mm(image.shape) / 2.0)
    rows, inside_rows = _overlap(lesion.row, profile.shape[0], image.shape[0])
    columns, inside_columns = _overlap(lesion.column, profile.shape[1], image.shape[1])
    profile = profile[inside_rows, inside_columns]

    tissue = exam[rows, columns].astype(np.float32)
    # A mass pushes tissue aside: the pattern below it shows through only in part.
    smooth = cv2.GaussianBlur(tissue, (0, 0), profile.shape[0] / 12.0)
    below = tissue + 0.5 * np.clip(profile, 0.0, 1.0) * (smooth - tissue)
    # Dense tissue saturates slowly: a mass in it is seen less, and keeps its texture.
    room = np.maximum(255.0 - below, 1.0)
    seen = below + room * np.tanh(lesion.contrast(diameter_mm) * profile / room)
    # Fat may be as dark as the background, which begins where it is dark for good.
    bright = (exam[rows, columns] > BACKGROUND_GREY).astype(np.uint8)
    breast = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, _FAT) > 0
    exam[rows, columns] = np.where(breast, np.clip(np.rint(seen), 0, 255), tissue)
    return exam


def _tissue_spread(local_mean: NDArray[np.uint8], skin_distance: NDArray[np.float32]) -> float:
    """Grey levels between fat and gland, leaving out the skin and the thin rim."""
    inside = local_mean[skin_distance > SKIN_MARGIN_MM * px_per_mm(local_mean.shape)]
    low, high = np.percentile(inside, (5, 95)) if inside.size else (0.0, 0.0)
    return float(np.clip(high - low, *TISSUE_SPREAD_GREY))


def _draw_place(
    local_mean: NDArray[np.uint8],
    skin_distance: NDArray[np.float32],
    room_mm: float,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Row and column of a glandular pixel, away from skin, frame and pectoral muscle."""
    height, width = local_mean.shape
    scale = px_per_mm(local_mean.shape)
    depth = (SKIN_MARGIN_MM + 0.65 * room_mm) * scale
    # A small breast has no such depth; then the deepest part of it serves.
    allowed = skin_distance > min(depth, 0.6 * float(skin_distance.max()))
    frame = round(FRAME_MARGIN_MM * scale)
    allowed[:frame] = allowed[-frame:] = False
    allowed[:, :frame] = allowed[:, -frame:] = False
    allowed &= ~_pectoral_corner(height, width)
    # One draw whatever the image, so that the generator's state does not depend on it.
    chance = rng.random()
    if not allowed.any():
        deepest = int(np.argmax(skin_distance))
        return deepest // width, deepest % width
    if (allowed & (local_mean <= MASKING_GREY)).any():
        allowed &= local_mean <= MASKING_GREY
    # Bright is glandular; the very brightest is calcified, muscle or saturated.
    # Values that do occur, or a handful of places could leave none between the two.
    low = np.percentile(local_mean[allowed], 70, method="lower")
    high = np.percentile(local_mean[allowed], 97, method="higher")
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
    margin_px = float(rng.uniform(0.05, 0.16)) * TEMPLATE_PX / (2.0 * TEMPLATE_RADII)
    return cv2.GaussianBlur(mass, (0, 0), margin_px).astype(np.float32, copy=False)


def _draw_body(
    x: NDArray[np.float32], y: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Thickness along the ray of an irregular, roughly ellipsoidal body."""
    orders = np.arange(2, 10)
    amplitudes = rng.normal(0.0, 0.16, orders.size) / orders**0.8
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
