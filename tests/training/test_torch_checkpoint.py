"""PyTorch checkpoints are read without PyTorch, and without running what they might hold."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.models.torch_checkpoint import read_state_dict

STORED = np.arange(24, dtype=np.float32)
# name -> (offset, shape, strides) into one storage of 24 floats; what they mean
VIEWS: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "whole": (0, (2, 3, 4), (12, 4, 1)),
    "transposed": (0, (4, 6), (1, 4)),
    "part": (5, (3,), (1,)),
    "scalar": (23, (), ()),
}
MEANT: dict[str, NDArray[np.float32]] = {
    "whole": STORED.reshape(2, 3, 4),
    "transposed": STORED.reshape(6, 4).T,
    "part": STORED[5:8],
    "scalar": STORED[23],
}


class _Named:
    """Something pickled as the global ``module.name`` without importing it."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


_PythonPickler: Any = pickle._Pickler  # the one that can be extended


class _StateDictPickler(_PythonPickler):  # type: ignore[misc]
    """Writes what ``torch.save`` writes, with persistent ids for storages."""

    legacy = False

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        return (*obj.ids, None) if self.legacy else obj.ids

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Named):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, _Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


class _Storage:
    def __init__(self, kind: str, length: int) -> None:
        self.ids = ("storage", _Named("torch", kind), "0", "cpu", length)


class _Call:
    def __init__(self, function: _Named, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments


def pickled(value: Any, *, legacy: bool) -> bytes:
    target = io.BytesIO()
    pickler = _StateDictPickler(target, protocol=2)
    pickler.legacy = legacy
    pickler.dump(value)
    return target.getvalue()


def state_dict() -> dict[str, _Call]:
    rebuild = _Named("torch._utils", "_rebuild_tensor_v2")
    storage = _Storage("FloatStorage", len(STORED))
    return {
        name: _Call(rebuild, (storage, offset, shape, strides, False, {}))
        for name, (offset, shape, strides) in VIEWS.items()
    }


def as_zip(value: Any) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("model/data.pkl", pickled(value, legacy=False))
        archive.writestr("model/data/0", STORED.tobytes())
    return target.getvalue()


def as_legacy(value: Any) -> bytes:
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    body = b"".join(pickle.dumps(part, protocol=2) for part in head) + pickled(value, legacy=True)
    keys = pickle.dumps(["0"], protocol=2)
    return body + keys + struct.pack("<q", len(STORED)) + STORED.tobytes()


LAYOUTS = pytest.mark.parametrize("layout", [as_zip, as_legacy], ids=["zip", "legacy"])


@LAYOUTS
def test_tensors_of_both_layouts_are_read(layout: Callable[[Any], bytes], tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(layout(state_dict()))
    tensors = read_state_dict(path)
    assert set(tensors) == set(VIEWS)
    for name, expected in MEANT.items():
        np.testing.assert_array_equal(tensors[name], expected)
        assert tensors[name].dtype == np.float32


@LAYOUTS
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_parameter_with_state"),
        ("collections", "Counter"),
        ("numpy", "load"),
    ],
)
def test_any_other_global_is_refused_and_not_run(
    layout: Callable[[Any], bytes], module: str, name: str, tmp_path: Path
) -> None:
    proof = tmp_path / "was-run"
    path = tmp_path / "model.pth"
    path.write_bytes(layout({"weight": _Call(_Named(module, name), (f"touch {proof}",))}))
    with pytest.raises(pickle.UnpicklingError, match=f"refused global {module}.{name}"):
        read_state_dict(path)
    assert not proof.exists()


def test_attack_would_run_in_an_ordinary_unpickler(tmp_path: Path) -> None:
    """Or the test above would prove nothing."""
    proof = tmp_path / "was-run"
    pickle.loads(pickled(_Call(_Named("os", "system"), (f"touch {proof}",)), legacy=False))
    assert proof.exists()
    assert os.path.getsize(proof) == 0  # noqa: PTH202
