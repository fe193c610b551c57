"""OpenJPEG's decoder at a lower resolution, through ctypes: it runs without the GIL.

imagecodecs brings the library along but its wrapper decodes whole pictures only. Structures are
those of openjpeg.h, whose binary interface has not changed since version 2.1.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_int, c_int32, c_int64, c_size_t, c_uint16, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

_CODE_STREAM = 0  # OPJ_CODEC_J2K
_END_OF_DATA = c_size_t(-1).value
_BUFFER_BYTES = 1 << 20
_PARAMETERS_BYTES = 1 << 15  # opj_dparameters_t has 8252


class OpenJpegError(Exception):
    """The library does not decode the stream."""


class _Component(ctypes.Structure):
    """opj_image_comp_t."""

    _fields_ = (
        *((name, c_uint32) for name in ("dx", "dy", "w", "h", "x0", "y0", "prec", "bpp", "sgnd")),
        *((name, c_uint32) for name in ("resno_decoded", "factor")),
        ("data", POINTER(c_int32)),
        ("alpha", c_uint16),
    )


class _Image(ctypes.Structure):
    """opj_image_t."""

    _fields_ = (
        *((name, c_uint32) for name in ("x0", "y0", "x1", "y1", "numcomps")),
        ("color_space", c_int),
        ("comps", POINTER(_Component)),
        ("icc_profile_buf", c_void_p),
        ("icc_profile_len", c_uint32),
    )


_READ = ctypes.CFUNCTYPE(c_size_t, c_void_p, c_size_t, c_void_p)
_SKIP = ctypes.CFUNCTYPE(c_int64, c_int64, c_void_p)
_SEEK = ctypes.CFUNCTYPE(c_int, c_int64, c_void_p)
_ImagePointer = POINTER(_Image)
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "opj_create_decompress": (c_void_p, (c_int,)),
    "opj_set_default_decoder_parameters": (None, (c_void_p,)),
    "opj_setup_decoder": (c_int, (c_void_p, c_void_p)),
    "opj_destroy_codec": (None, (c_void_p,)),
    "opj_stream_create": (c_void_p, (c_size_t, c_int)),
    "opj_stream_set_read_function": (None, (c_void_p, _READ)),
    "opj_stream_set_skip_function": (None, (c_void_p, _SKIP)),
    "opj_stream_set_seek_function": (None, (c_void_p, _SEEK)),
    "opj_stream_set_user_data_length": (None, (c_void_p, ctypes.c_uint64)),
    "opj_stream_set_user_data": (None, (c_void_p, c_void_p, c_void_p)),
    "opj_stream_destroy": (None, (c_void_p,)),
    "opj_read_header": (c_int, (c_void_p, c_void_p, POINTER(_ImagePointer))),
    "opj_set_decoded_resolution_factor": (c_int, (c_void_p, c_uint32)),
    "opj_decode": (c_int, (c_void_p, c_void_p, _ImagePointer)),
    "opj_end_decompress": (c_int, (c_void_p, c_void_p)),
    "opj_image_destroy": (None, (_ImagePointer,)),
}


def _loaded() -> ctypes.CDLL | None:
    folder = Path(imagecodecs.__file__).parent.parent / "imagecodecs.libs"
    for path in sorted(folder.glob("libopenjp2*.so*")):
        try:
            library = ctypes.CDLL(str(path))
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError):
            continue
        return library
    return None


_LIBRARY = _loaded()
AVAILABLE = _LIBRARY is not None  # where not, whole pictures are decoded by imagecodecs


def decode(stream: bytes, levels: int) -> NDArray[np.int32]:
    """Decode a code stream of one component, int32 [rows, columns], without its ``levels`` finest
    resolutions: each halves the sides, rounded up.

    Raises ``OpenJpegError``.
    """
    assert _LIBRARY is not None
    source = _Source(stream)
    codec = _LIBRARY.opj_create_decompress(_CODE_STREAM)
    pointer = source.opened(_LIBRARY)
    image = _ImagePointer()
    try:
        parameters = ctypes.create_string_buffer(_PARAMETERS_BYTES)
        _LIBRARY.opj_set_default_decoder_parameters(parameters)
        steps: tuple[Callable[[], int], ...] = (
            lambda: _LIBRARY.opj_setup_decoder(codec, parameters),
            lambda: _LIBRARY.opj_read_header(pointer, codec, byref(image)),
            lambda: _LIBRARY.opj_set_decoded_resolution_factor(codec, levels),
            lambda: _LIBRARY.opj_decode(codec, pointer, image),
            lambda: _LIBRARY.opj_end_decompress(codec, pointer),
        )
        if not all(step() for step in steps) or image.contents.numcomps != 1:
            raise OpenJpegError
        component = image.contents.comps[0]
        if not component.data:
            raise OpenJpegError
        # not through an array of ctypes, which would keep a type for every size
        found = np.empty((component.h, component.w), np.int32)
        ctypes.memmove(found.ctypes.data, component.data, found.nbytes)
        return found
    finally:
        _LIBRARY.opj_stream_destroy(pointer)
        _LIBRARY.opj_destroy_codec(codec)
        if image:
            _LIBRARY.opj_image_destroy(image)


class _Source:
    """A stream that the library reads from memory, in a few large pieces."""

    def __init__(self, stream: bytes) -> None:
        self._bytes = np.frombuffer(stream, np.uint8)
        self._place = 0
        self._functions = (_READ(self._read), _SKIP(self._skip), _SEEK(self._seek))

    def opened(self, library: ctypes.CDLL) -> int:
        pointer: int = library.opj_stream_create(_BUFFER_BYTES, 1)
        read, skip, seek = self._functions
        library.opj_stream_set_read_function(pointer, read)
        library.opj_stream_set_skip_function(pointer, skip)
        library.opj_stream_set_seek_function(pointer, seek)
        library.opj_stream_set_user_data_length(pointer, self._bytes.size)
        library.opj_stream_set_user_data(pointer, None, None)
        return pointer

    def _read(self, target: int, wanted: int, _: int | None) -> int:
        count = min(wanted, self._bytes.size - self._place)
        if count <= 0:
            return _END_OF_DATA
        ctypes.memmove(target, self._bytes.ctypes.data + self._place, count)
        self._place += count
        return count

    def _skip(self, count: int, _: int | None) -> int:
        moved = max(0, min(count, self._bytes.size - self._place))
        self._place += moved
        return moved if moved == count else -1

    def _seek(self, place: int, _: int | None) -> int:
        if not 0 <= place <= self._bytes.size:
            return 0
        self._place = place
        return 1
