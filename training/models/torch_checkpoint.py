"""Read a PyTorch ``.pth`` state dict into numpy arrays without PyTorch.

Understands the two layouts that ``torch.save`` has written: the zip archive (since 1.6) and the
older stream of pickles. Only tensors are restored; any other global in the file is refused, so a
checkpoint cannot run code.
"""

from __future__ import annotations

import io
import pickle  # nosec B403: loads tensors only, refuses code
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STORAGE_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    length: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, content: bytes) -> NDArray[Any]:
        flat = np.frombuffer(content, self.storage.dtype, self.storage.length)[self.offset :]
        itemsize = self.storage.dtype.itemsize
        return np.lib.stride_tricks.as_strided(
            flat, self.shape, [stride * itemsize for stride in self.strides]
        ).copy()


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


class _StateDictUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"refused global {module}.{name} in a checkpoint")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, length = pid[:5]
        return _Storage(str(key), dtype, int(length))


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a PyTorch checkpoint by name.

    Raises ``pickle.UnpicklingError`` if the file holds anything but tensors.
    """
    content = path.read_bytes()
    if zipfile.is_zipfile(io.BytesIO(content)):
        tensors, storages = _read_zip(content)
    else:
        tensors, storages = _read_legacy(content)
    return {name: tensor.read(storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_zip(content: bytes) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        pickle_name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickle_name.removesuffix("data.pkl")
        tensors = _StateDictUnpickler(io.BytesIO(archive.read(pickle_name))).load()
        keys = {tensor.storage.key for tensor in tensors.values()}
        return tensors, {key: archive.read(f"{folder}data/{key}") for key in keys}


def _read_legacy(content: bytes) -> tuple[dict[str, _Tensor], dict[str, bytes]]:
    stream = io.BytesIO(content)
    for _ in range(3):  # magic number, protocol version, system information
        _StateDictUnpickler(stream).load()
    tensors = _StateDictUnpickler(stream).load()
    keys = _StateDictUnpickler(stream).load()
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
    storages = {}
    for key in keys:
        (length,) = struct.unpack("<q", stream.read(8))
        storages[key] = stream.read(length * dtypes[key].itemsize)
    return tensors, storages
