"""A trained hybrid -> a smaller one without the encoder channels that say least.

Whole channels go, so that what is left is an ordinary, smaller network and not a sparse one: the
expanded channels of EfficientNet-Lite0's inverted residual blocks, the same share of every block,
least important first. No data is needed; ``fit`` then trains what is left for a few epochs.

Pruning filters by magnitude: Li et al., ICLR 2017, arXiv:1608.08710; by the scale that batch
normalisation gives a channel: Liu et al., ICCV 2017, arXiv:1708.06519. Both are in the measure
used here: how much a channel varies after its normalisation and activation, times the L1 norm of
the weights that carry it on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from training.models.efficientnet_lite0 import WIDTHS
from training.models.hybrid import Hybrid

MULTIPLE = 16  # other widths leave a part of the vector units idle and are slower
_QUANTILES = norm.ppf((np.arange(1000) + 0.5) / 1000)  # stand for a normal distribution


def pruned(model: Hybrid, share: float) -> Hybrid:
    """A copy of ``model`` with ``share`` (0 to 1) of the expanded channels of every block left out.

    Widths are rounded to multiples of 16. What a channel adds on average is kept: it moves into the
    mean of the batch normalisation that follows. Raises ``ValueError`` for an encoder other than
    ``efficientnet_lite0`` or a share outside of [0, 1).
    """
    config = model.get_config()
    if config["encoder"] != "efficientnet_lite0":
        raise ValueError(f"only efficientnet_lite0 can be pruned, not {config['encoder']}")
    if not 0 <= share < 1:
        raise ValueError(f"the share to prune is {share}, not in [0, 1)")
    kept = [_kept(model.encoder, block, share) for block in _blocks()]
    options = {**(config["encoder_options"] or {}), "widths": [len(channels) for channels in kept]}
    smaller: Hybrid = Hybrid.from_config({**config, "encoder_options": options})
    smaller.build()
    for old, new in zip(model.layers, smaller.layers, strict=True):
        if old is not model.encoder:
            new.set_weights(old.get_weights())
    for old, new in zip(model.encoder.layers, smaller.encoder.layers, strict=True):
        if old.weights and [w.shape for w in old.weights] == [w.shape for w in new.weights]:
            new.set_weights(old.get_weights())
    for block, channels in zip(_blocks(), kept, strict=True):
        _copy_block(model.encoder, smaller.encoder, block, channels)
    return smaller


def importance(encoder: Any, block: str) -> NDArray[np.float64]:
    """How much each expanded channel of a block moves the block's output: standard deviation of
    the channel times the L1 norm of its outgoing weights, as the normalisation after them scales
    them. 0 for a channel that is constant or goes nowhere."""
    _, spread = _activation(encoder, block)
    kernel = encoder.get_layer(f"{block}_project").get_weights()[0][0, 0]  # [width, filters]
    after = encoder.get_layer(f"{block}_project_bn")
    gamma, _, _, variance = after.get_weights()
    scaled = np.abs(kernel) * np.abs(gamma) / np.sqrt(variance + after.epsilon)
    return np.asarray(spread * scaled.sum(axis=1))


def _blocks() -> list[str]:
    return [f"block{index}" for index in range(1, len(WIDTHS) + 1)]


def _kept(encoder: Any, block: str, share: float) -> NDArray[np.intp]:
    """Indices of the channels that stay, ascending."""
    found = importance(encoder, block)
    width = max(MULTIPLE, MULTIPLE * round((1 - share) * len(found) / MULTIPLE))
    return np.sort(np.argsort(-found, kind="stable")[: min(width, len(found))])


def _activation(encoder: Any, block: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each expanded channel as the projection sees it, [width].

    Batch normalisation gives a channel the mean beta and the standard deviation gamma; what ReLU6
    leaves of a normal distribution of these follows (Nagel et al., ICCV 2019, arXiv:1906.04721,
    use the same). A channel whose depthwise weights are zero is constant.
    """
    layer = encoder.get_layer(f"{block}_depthwise_bn")
    gamma, beta, mean, variance = layer.get_weights()
    kernel = encoder.get_layer(f"{block}_depthwise").get_weights()[0]  # [k, k, width, 1]
    constant = ~kernel.any(axis=(0, 1, 3))
    centre = np.where(constant, beta - gamma * mean / np.sqrt(variance + layer.epsilon), beta)
    reach = np.where(constant, 0, np.abs(gamma))
    clipped = np.clip(centre[:, None] + reach[:, None] * _QUANTILES, 0, 6)  # [width, quantiles]
    return clipped.mean(axis=1), clipped.std(axis=1)


def _copy_block(old: Any, new: Any, block: str, kept: NDArray[np.intp]) -> None:
    (expand,) = old.get_layer(f"{block}_expand").get_weights()  # [1, 1, in, width]
    new.get_layer(f"{block}_expand").set_weights([expand[..., kept]])
    (depthwise,) = old.get_layer(f"{block}_depthwise").get_weights()  # [k, k, width, 1]
    new.get_layer(f"{block}_depthwise").set_weights([depthwise[:, :, kept]])
    for part in ("expand", "depthwise"):
        weights = old.get_layer(f"{block}_{part}_bn").get_weights()  # each [width]
        new.get_layer(f"{block}_{part}_bn").set_weights([weight[kept] for weight in weights])
    (project,) = old.get_layer(f"{block}_project").get_weights()  # [1, 1, width, filters]
    new.get_layer(f"{block}_project").set_weights([project[:, :, kept]])

    gone = np.setdiff1d(np.arange(project.shape[2]), kept)
    added = _activation(old, block)[0][gone] @ project[0, 0, gone]  # on average, [filters]
    gamma, beta, mean, variance = old.get_layer(f"{block}_project_bn").get_weights()
    new.get_layer(f"{block}_project_bn").set_weights([gamma, beta, mean - added, variance])
