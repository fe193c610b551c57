"""How far an image's features lie from those of the images that the model has learned from.

The features of mammograms fill a small part of feature space. What an image's features have
outside of it, as a root mean square in standard deviations, is its distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.bundle import GATE, Bundle, BundleError
from app.imaging.quality import Fault


@dataclass(frozen=True)
class Familiarity:
    """The part of feature space that is known: ``mean`` and ``scale`` float32 [channels] of the
    levelled features, ``basis`` [channels, directions] orthonormal, and the largest distance of
    a familiar image."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    basis: NDArray[np.float32]
    threshold: float

    def fault_of(self, pooled: NDArray[np.float32]) -> Fault | None:
        """What is wrong with an image of features ``pooled`` [channels], if anything is."""
        distance = float(self.distances(pooled[np.newaxis])[0])
        if distance <= self.threshold:  # NaN is not
            return None
        return Fault(
            "unfamiliar_image",
            f"Its features are {distance:.2f} away from those of the training images; "
            f"at most {self.threshold:.2f} is familiar.",
        )

    def distances(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Distances, float32 [images], of features ``pooled`` [images, channels]."""
        return outside(levelled(pooled), self.mean, self.scale, self.basis)


def levelled(pooled: NDArray[Any]) -> NDArray[Any]:
    """Features with the few large ones no longer drowning the others: their square roots."""
    return np.asarray(np.sqrt(np.maximum(pooled, 0)))


def outside(
    features: NDArray[Any], mean: NDArray[Any], scale: NDArray[Any], basis: NDArray[Any]
) -> NDArray[Any]:
    """What levelled ``features`` [images, channels] have outside of the span of ``basis``, root
    mean square over the remaining directions, [images]."""
    channels, directions = basis.shape
    standard = (features - mean) / scale
    # not `@`: for so little work BLAS wakes threads of its own, which spin on the pools' cores
    along = np.einsum("ic,cd->id", standard, basis)
    rest = standard - np.einsum("id,cd->ic", along, basis)
    return np.asarray(np.sqrt((rest**2).sum(axis=1) / (channels - directions)))


def familiarity_of(bundle: Bundle, gate: Literal["refuse", "warn"]) -> Familiarity | None:
    """The distance that a bundle brings with it.

    Raises ``BundleError`` for one that cannot be read, and, where the ``gate`` is to refuse, for
    a bundle without one: nothing would keep other images out.
    """
    spec = bundle.manifest.gate
    if bundle.gate is None or spec is None:
        if gate == "refuse":
            raise BundleError(
                f"{bundle.folder} has no quality gate: it cannot tell mammograms from other "
                "images; set MAMMOSEQ_GATE=warn to serve it all the same"
            )
        return None
    try:
        with np.load(BytesIO(bundle.gate), allow_pickle=False) as stored:
            mean, scale, basis = (stored[name] for name in ("mean", "scale", "basis"))
        known = Familiarity(mean, scale, basis, spec.threshold)
        known.distances(np.zeros((1, len(mean)), np.float32))  # the shapes fit
    except Exception:  # numpy and zipfile raise whatever broken bytes lead them to
        raise BundleError(f"{bundle.folder / GATE} is not a quality gate") from None
    return known


def gate_bytes(mean: NDArray[Any], scale: NDArray[Any], basis: NDArray[Any]) -> bytes:
    """The file that ``familiarity_of`` reads."""
    target = BytesIO()
    np.savez_compressed(
        target,
        mean=mean.astype(np.float32),
        scale=scale.astype(np.float32),
        basis=basis.astype(np.float32),
    )
    return target.getvalue()
