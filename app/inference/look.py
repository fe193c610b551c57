"""What the bytes of a file alone tell, and nothing of the request that brought them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.imaging.facts import ImageFacts
from app.imaging.preprocess import Crop
from app.imaging.quality import Fault
from app.inference.sessions import Features


@dataclass(frozen=True)
class Look:
    """``crop`` and ``inverted`` say how it became the model's input, ``faults`` what the quality
    gate found, ``features`` what the encoder made of it; ``shown`` is the whole image small, uint8
    [height, width].
    """

    facts: ImageFacts
    crop: Crop
    inverted: bool
    faults: tuple[Fault, ...]
    features: Features
    shown: NDArray[np.uint8] | None

    @property
    def nbytes(self) -> int:
        shown = 0 if self.shown is None else self.shown.nbytes
        return self.features.maps.nbytes + self.features.pooled.nbytes + shown
