"""Bodies of the Open Inference Protocol: JSON, with binary tensors behind it, to files or pixels;
outputs to such a body.

Nothing of a body is believed: every length is compared with what is there, and JSON of more values
than a few images have is refused before it is parsed, since each takes many times its length.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from app.api.protocol import (
    HEADER_LENGTH,
    IMAGE,
    OUTPUTS,
    PIXELS,
    InferIn,
    InputIn,
    OutputIn,
    RequestParameters,
    TensorBody,
    TensorParameters,
)
from app.api.uploads import first_fault
from app.bundle import InputSpec
from app.problems import Refusal

_JSON_IMAGES = 4  # whose pixels may be numbers in JSON
_OTHER_VALUES = 10_000  # that JSON may have besides
_MOST_DIGITS = 19  # Python refuses to read thousands of them
_LENGTH = struct.Struct("<I")  # before each element of BYTES

Output = NDArray[np.float32] | list[str]


@dataclass(frozen=True)
class Wanted:
    """An output that is wanted, and whether behind the JSON."""

    name: str
    binary: bool


@dataclass(frozen=True)
class Asked:
    """What a request asks: of ``files``, or of ``pixels`` float32 [images, height, width, 1],
    which is None where files came."""

    id: str | None
    files: Sequence[bytes]
    pixels: NDArray[np.float32] | None
    outputs: Sequence[Wanted]
    parameters: RequestParameters

    @property
    def images(self) -> Sequence[bytes | memoryview]:
        """The bytes of each image."""
        if self.pixels is None:
            return self.files
        return [memoryview(image).cast("B") for image in self.pixels]

    @property
    def image_bytes(self) -> int:
        """Of all images."""
        return sum(len(image) for image in self.images)


def asked_of(
    body: bytes | bytearray, header_length: str | None, takes: InputSpec, most: int
) -> Asked:
    """Read a body for a model that ``takes`` such pixels, of at most ``most`` images.

    ``header_length`` is the header that says where the JSON ends; None if it is the whole body.
    Raises ``Refusal``: ``invalid_request``, ``invalid_json``, ``invalid_tensor``, ``no_file``,
    ``too_many_images``.
    """
    end = len(body) if header_length is None else _json_end(header_length, len(body))
    asked = _parsed(body if end == len(body) else body[:end], takes)
    parts = list(_binary_parts(asked.inputs, memoryview(body)[end:]))
    if len(asked.inputs) != 1:
        raise Refusal("invalid_tensor", f"inputs: one of {IMAGE}, {PIXELS} is expected.")
    tensor, part = asked.inputs[0], parts[0]
    files: Sequence[bytes] = ()
    pixels = None
    if tensor.name == IMAGE:
        files = _files(tensor, part, most)
    elif tensor.name == PIXELS:
        pixels = _pixels(tensor, part, takes, most)
    else:
        raise Refusal("invalid_tensor", f"inputs.0.name: {IMAGE} or {PIXELS} is expected.")
    parameters = asked.parameters or RequestParameters()
    outputs = _wanted(asked.outputs or [], parameters.binary_data_output)
    return Asked(asked.id, files, pixels, outputs, parameters)


def tensor_body(name: str, output: Output, *, binary: bool) -> tuple[TensorBody, bytes]:
    """What is said of an output, and its bytes behind the JSON, none if it is in there."""
    body = TensorBody(
        name=name,
        datatype=OUTPUTS[name],
        shape=[len(output)] if isinstance(output, list) else list(output.shape),
    )
    if not binary:
        data = output if isinstance(output, list) else output.ravel().tolist()
        return body.model_copy(update={"data": data}), b""
    if isinstance(output, list):
        encoded = [text.encode() for text in output]
        content = b"".join(_LENGTH.pack(len(element)) + element for element in encoded)
    else:
        content = output.astype("<f4").tobytes()
    size = TensorParameters(binary_data_size=len(content))
    return body.model_copy(update={"parameters": size}), content


def _json_end(stated: str, length: int) -> int:
    plain = stated.isascii() and stated.isdigit() and len(stated) <= _MOST_DIGITS
    if not plain or int(stated) > length:
        raise Refusal(
            "invalid_request", f"{HEADER_LENGTH}: the bytes of the JSON, at most those of the body."
        )
    return int(stated)


def _parsed(text: bytes | bytearray, takes: InputSpec) -> InferIn:
    values = text.count(b",") + text.count(b"[") + text.count(b"{")  # or fewer
    # Nested, each number is in a list of its own
    most = 2 * _JSON_IMAGES * takes.height * takes.width + _OTHER_VALUES
    if values > most:
        raise _too_many_numbers()
    try:
        return InferIn.model_validate_json(text)
    except ValidationError as error:
        raise Refusal("invalid_json", first_fault(error)) from None


def _binary_parts(inputs: Sequence[InputIn], rest: memoryview) -> Iterator[memoryview | None]:
    """What each input has behind the JSON, None if nothing. Raises ``Refusal`` unless all fits."""
    place = 0
    for number, tensor in enumerate(inputs):
        size = tensor.parameters.binary_data_size if tensor.parameters else None
        if (size is None) == (tensor.data is None):
            raise Refusal(
                "invalid_tensor", f"inputs.{number}: either data or binary_data_size is expected."
            )
        if size is None:
            yield None
            continue
        if place + size > len(rest):
            raise Refusal(
                "invalid_tensor", f"inputs.{number}: there is less binary data than it says."
            )
        yield rest[place : place + size]
        place += size
    if place != len(rest):
        raise Refusal("invalid_tensor", "There is more binary data than the inputs say.")


def _check(tensor: InputIn, datatype: str, inner: Sequence[int], most: int) -> int:
    """The number of images of a tensor [images, *inner]."""
    if tensor.datatype != datatype:
        raise Refusal("invalid_tensor", f"{tensor.name}: datatype {datatype} is expected.")
    if len(tensor.shape) != 1 + len(inner) or tensor.shape[1:] != list(inner):
        expected = ", ".join(["n", *map(str, inner)])
        raise Refusal("invalid_tensor", f"{tensor.name}: shape [{expected}] is expected.")
    images = tensor.shape[0]
    if not images:
        raise Refusal("no_file", "The request holds no image.")
    if images > most:
        raise Refusal("too_many_images", f"At most {most} are accepted.")
    return images


def _files(tensor: InputIn, part: memoryview | None, most: int) -> list[bytes]:
    images = _check(tensor, "BYTES", (), most)
    files = _unbased(tensor.data or []) if part is None else _elements(part, images)
    if len(files) != images:
        raise Refusal("invalid_tensor", f"{IMAGE}: there are not as many elements as it says.")
    return files


def _unbased(data: Sequence[object]) -> list[bytes]:
    try:
        if not all(isinstance(element, str) for element in data):
            raise ValueError
        return [base64.b64decode(str(element), validate=True) for element in data]
    except (binascii.Error, ValueError):
        raise Refusal("invalid_tensor", f"{IMAGE}: each element in JSON is base64.") from None


def _elements(part: memoryview, most: int) -> list[bytes]:
    """What is in BYTES, of more than ``most`` elements only so many and one."""
    found: list[bytes] = []
    place = 0
    while place < len(part) and len(found) <= most:
        start = place + _LENGTH.size
        if start > len(part):
            raise Refusal("invalid_tensor", f"{IMAGE}: the binary data is cut short.")
        (length,) = _LENGTH.unpack(part[place:start])
        place = start + length
        if place > len(part):
            raise Refusal("invalid_tensor", f"{IMAGE}: the binary data is cut short.")
        found.append(bytes(part[start:place]))
    return found


def _pixels(
    tensor: InputIn, part: memoryview | None, takes: InputSpec, most: int
) -> NDArray[np.float32]:
    inner = (takes.height, takes.width, takes.channels)
    shape = (_check(tensor, "FP32", inner, most), *inner)
    if part is None and shape[0] > _JSON_IMAGES:
        raise _too_many_numbers()
    values = _numbers(tensor.data or [], shape) if part is None else _floats(part)
    if values is None or values.size != np.prod(shape):
        raise Refusal("invalid_tensor", f"{PIXELS}: the data is not that of its shape.")
    low, high = takes.value_range
    if not (values.min() >= low and values.max() <= high):  # NaN is not
        raise Refusal("invalid_tensor", f"{PIXELS}: values from {low:g} to {high:g} are expected.")
    return values.astype(np.float32, copy=False).reshape(shape)


def _too_many_numbers() -> Refusal:
    return Refusal(
        "invalid_tensor",
        f"At most {_JSON_IMAGES} images may be numbers in JSON; send more as binary data.",
    )


def _floats(part: memoryview) -> NDArray[np.float32] | None:
    if len(part) % 4:
        return None
    return np.frombuffer(part, "<f4").astype(np.float32)  # a copy, since the JSON shifts it


def _numbers(data: Sequence[object], shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Numbers in a list, or nested as the shape is."""
    if not _are_numbers(data):
        return None
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError):  # ragged, or nested too deeply
        return None
    if values.dtype.kind not in "iuf" or values.shape not in ((values.size,), shape):
        return None
    return values.astype(np.float64)


def _are_numbers(data: Sequence[object]) -> bool:
    """Whether lists hold nothing but numbers: numpy would give every number as much room as the
    longest text among them, and take true for 1."""
    level: Sequence[object] = data
    while level and all(isinstance(part, list) for part in level):
        level = [value for part in level if isinstance(part, list) for value in part]
    return all(type(value) in (int, float) for value in level)


def _wanted(outputs: Sequence[OutputIn], binary: bool) -> list[Wanted]:
    names = [output.name for output in outputs]
    if not set(names) <= set(OUTPUTS) or len(set(names)) < len(names):
        raise Refusal("invalid_tensor", f"outputs: each once, of {', '.join(OUTPUTS)}.")
    if not outputs:
        return [Wanted(name, binary) for name in OUTPUTS]
    return [Wanted(output.name, _is_binary(output, binary)) for output in outputs]


def _is_binary(output: OutputIn, otherwise: bool) -> bool:
    own = output.parameters.binary_data if output.parameters else None
    return otherwise if own is None else own
