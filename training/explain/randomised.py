"""The parameter-randomisation check of heatmaps (Adebayo et al., NeurIPS 2018, arXiv:1810.03292).

A heatmap that explains a network must change when what the network has learned is destroyed. The
weights of the served graphs are put into random order, layer by layer from the top down
(*cascading*) or one layer at a time (*independent*), and the maps compared with the original ones.

The head's graph holds its weights twice: for the logits, and transposed or scaled for the gradient
that weighs the maps. Both are changed alike, or the map would be that of another network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.stats import rankdata

from app.bundle import Bundle
from app.inference.sessions import Features, Sessions
from training.explain.heatmaps import cells_of_breast, encode, read_alone
from training.run_folder import RunError

# Where a float constant of more than one value is a weight; elsewhere it is the graph's own (the
# two values of a one-hot vector, for instance).
_WEIGHTED = {"Conv", "Gemm", "MatMul", "Mul", "Add", "LSTM", "GRU"}
_SSIM_SIGMA_CELLS = 1.5
_SSIM_STABILISERS = (0.01**2, 0.03**2)  # for a range of 1: Wang et al. 2004

Tensor = onnx.TensorProto
KINDS = ("cascading", "independent")


@dataclass(frozen=True)
class Stage:
    """Weights that are randomised together: ``tensors`` names constants of one graph."""

    name: str
    graph: str  # "encoder" or "head"
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Similarity:
    """One randomised map beside the original: ``stage`` counts from the top; NaN where the map is
    the same in every cell."""

    kind: str  # "cascading" or "independent"
    stage: int
    stage_name: str
    draw: int
    image: str
    patient_id: str
    spearman_breast: float
    spearman_all: float
    ssim: float


def stages_of(bundle: Bundle, encoder_stages: int) -> list[Stage]:
    """The bundle's weights from the top down: classifier, LSTM, dense, then the encoder's
    convolutions from the last to the first in ``encoder_stages`` groups."""
    return _head_stages(bundle.head) + _encoder_stages(bundle.encoder, encoder_stages)


def randomise(graph: bytes, tensors: Sequence[str], rng: np.random.Generator) -> bytes:
    """The graph with the values of each of ``tensors``, and of their copies, in random order.

    Permuting keeps the distribution of a layer's weights, so that signals stay in its range."""
    model = onnx.load_from_string(graph)
    constants = list(_constants(model.graph))
    originals = {constant.name: numpy_helper.to_array(constant) for constant in constants}
    for name in tensors:
        original = originals[name]
        changed = rng.permutation(original.ravel()).reshape(original.shape)
        for constant in constants:
            held = originals[constant.name]
            copied = _same_weights(original, changed, held)
            if copied is not None:
                constant.CopyFrom(numpy_helper.from_array(copied, constant.name))
    return bytes(model.SerializeToString())


def comparisons(
    bundle: Bundle,
    images: NDArray[np.uint8],
    names: Sequence[str],
    patients: Sequence[str],
    *,
    encoder_stages: int,
    draws: int,
    seed: int,
) -> dict[str, Callable[[], list[Similarity]]]:
    """One piece of measuring a network: every stage randomised, cascading and alone, ``draws``
    times, and its maps of ``images`` uint8 [n, height, width] compared with the bundle's own."""
    stages = stages_of(bundle, encoder_stages)

    @cache
    def trained() -> tuple[Features, NDArray[np.float32]]:
        sessions = Sessions(bundle.encoder, bundle.head, device="cpu")
        features = encode(sessions, images)
        return features, read_alone(sessions, features, bundle.manifest).heatmaps

    def compare(draw: int, kind: str, stage: int) -> list[Similarity]:
        features, originals = trained()
        changed_stages = range(stage + 1) if kind == "cascading" else [stage]
        changed = _sessions_with(bundle, stages, changed_stages, seed, draw)
        seen = features if stages[stage].graph == "head" else encode(changed, images)
        maps = read_alone(changed, seen, bundle.manifest).heatmaps
        found = []
        for i, (own, other) in enumerate(zip(originals, maps, strict=True)):
            cells = cells_of_breast(images[i], own.shape)
            found.append(
                Similarity(
                    kind=kind,
                    stage=stage,
                    stage_name=stages[stage].name,
                    draw=draw,
                    image=names[i],
                    patient_id=patients[i],
                    spearman_breast=spearman(own[cells], other[cells]),
                    spearman_all=spearman(own, other),
                    ssim=ssim(own, other),
                )
            )
        return found

    return {
        f"draw {draw}, {kind}, stage {stage}": partial(compare, draw, kind, stage)
        for draw, kind, stage in product(range(draws), KINDS, range(len(stages)))
    }


def _sessions_with(
    bundle: Bundle, stages: Sequence[Stage], changed: Iterable[int], seed: int, draw: int
) -> Sessions:
    """The bundle with some stages randomised; a stage is the same in every network of a draw."""
    graphs = {"encoder": bundle.encoder, "head": bundle.head}
    for stage in changed:
        graph = stages[stage].graph
        rng = np.random.default_rng([seed, draw, stage])
        graphs[graph] = randomise(graphs[graph], stages[stage].tensors, rng)
    return Sessions(graphs["encoder"], graphs["head"], device="cpu")


def spearman(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Rank correlation of two maps of one shape; NaN if one is the same everywhere."""
    if one.size < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def ssim(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean structural similarity (Wang et al., IEEE TIP 2004;13:600-12) of two maps [rows,
    columns], each scaled to a maximum of 1; NaN if one is empty."""
    if not (one.max() > 0 and other.max() > 0):
        return float("nan")
    a, b = one / one.max(), other / other.max()

    def local(values: NDArray[np.float32]) -> NDArray[np.float32]:
        blurred = cv2.GaussianBlur(values, (0, 0), _SSIM_SIGMA_CELLS, borderType=cv2.BORDER_REFLECT)
        return np.asarray(blurred, np.float32)

    mean_a, mean_b = local(a), local(b)
    spread_a, spread_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    together = local(a * b) - mean_a * mean_b
    c1, c2 = _SSIM_STABILISERS
    quality = (2 * mean_a * mean_b + c1) * (2 * together + c2)
    quality /= (mean_a**2 + mean_b**2 + c1) * (spread_a + spread_b + c2)
    return float(quality.mean())


def _encoder_stages(encoder: bytes, count: int) -> list[Stage]:
    layers = _layers(encoder, "maps")
    groups = np.array_split(np.arange(len(layers)), min(count, len(layers)))
    return [
        Stage(
            f"encoder layers {group[-1] + 1}-{group[0] + 1} of {len(layers)}",
            "encoder",
            tuple(t for layer in group for t in layers[layer].tensors),
        )
        for group in reversed(groups)
    ]


def _head_stages(head: bytes) -> list[Stage]:
    layers = _layers(head, "logits")
    _check_gradient(head, layers)
    names = ["LSTM" if layer.recurrent else "dense" for layer in layers[:-1]] + ["classifier"]
    return [
        Stage(name, "head", layer.tensors)
        for name, layer in zip(reversed(names), reversed(layers), strict=True)
    ]


@dataclass(frozen=True)
class _Layer:
    """A matrix or kernel, the recurrent one of its loop, and their scales and biases."""

    tensors: tuple[str, ...]
    recurrent: bool = False


def _layers(graph: bytes, output: str) -> list[_Layer]:
    """The layers that ``output`` is computed with, in the order of their use."""
    model = onnx.load_from_string(graph)
    layers: list[_Layer] = []
    scales_before: tuple[str, ...] = ()
    seen: set[str] = set()
    for constant, in_loop in _used(model.graph, _needed(model.graph, output)):
        name = constant.name
        if name in seen:
            continue
        seen.add(name)
        is_kernel = _is_kernel(constant.dims)
        if layers and (in_loop or not is_kernel):
            last = layers[-1]
            recurrent = last.recurrent or in_loop
            layers[-1] = _Layer((*last.tensors, name), recurrent)
        elif is_kernel:
            layers.append(_Layer((*scales_before, name)))
            scales_before = ()
        else:
            scales_before = (*scales_before, name)
    return layers


def _constants(graph: onnx.GraphProto) -> Iterator[Tensor]:
    """Float constants of more than one value, those of loop bodies included."""
    for constant in graph.initializer:
        if _is_float(constant):
            yield constant
    for node in graph.node:
        for body in _bodies(node):
            yield from _constants(body)


def _is_float(constant: Tensor) -> bool:
    return constant.data_type == Tensor.FLOAT and int(np.prod(constant.dims)) > 1


def _is_kernel(shape: Sequence[int]) -> bool:
    return sum(side > 1 for side in shape) > 1


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def _needed(graph: onnx.GraphProto, output: str) -> list[onnx.NodeProto]:
    """The nodes that ``output`` is computed from, in the graph's (topological) order."""
    wanted = {output}
    needed: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            needed.append(node)
            wanted |= set(node.input)
            wanted |= {
                name for body in _bodies(node) for inner in body.node for name in inner.input
            }
    return needed[::-1]


def _used(
    graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], in_loop: bool = False
) -> Iterator[tuple[Tensor, bool]]:
    """Each weight of ``graph`` that ``nodes`` use, and whether that is in a loop."""
    held = {constant.name: constant for constant in graph.initializer if _is_float(constant)}
    for node in nodes:
        for name in node.input if node.op_type in _WEIGHTED else ():
            constant = held.get(name)
            if constant is not None:
                yield constant, in_loop
        for body in _bodies(node):
            yield from _used(body, list(body.node), in_loop=True)


def _same_weights(
    original: NDArray[np.float32], changed: NDArray[np.float32], held: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """What ``held`` becomes when ``original`` becomes ``changed``: None if it is no copy of it,
    transposed or scaled or with axes of length 1 added."""
    if held.size != original.size:
        return None
    for turn in (False, True):
        source = np.squeeze(original).T if turn else np.squeeze(original)
        if source.shape != np.squeeze(held).shape:
            continue
        flat: NDArray[np.float64] = source.ravel().astype(np.float64)
        values: NDArray[np.float64] = held.ravel().astype(np.float64)
        scale = float(np.dot(flat, values)) / max(float(np.dot(flat, flat)), 1e-30)
        if np.allclose(values, scale * flat, rtol=1e-5, atol=1e-7 * float(np.abs(values).max())):
            target = np.squeeze(changed).T if turn else np.squeeze(changed)
            return np.asarray(scale * target.reshape(held.shape), np.float32)
    return None


def _check_gradient(head: bytes, layers: Sequence[_Layer]) -> None:
    """Raise ``RunError`` if the head holds a weight matrix that is no copy of a known one."""
    constants = {
        c.name: numpy_helper.to_array(c) for c in _constants(onnx.load_from_string(head).graph)
    }
    known = [constants[name] for layer in layers for name in layer.tensors]
    for values in constants.values():
        if _is_kernel(values.shape) and all(_same_weights(k, k, values) is None for k in known):
            raise RunError(
                f"the head holds weights of shape {values.shape} that its logits do not use: its "
                "heatmap cannot be randomised consistently"
            )
