"""The peers, and how each wants to be asked: as leanly as its HTTP interface allows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_OCTETS = "application/octet-stream"
_TRITON = "/v2/models/mammograms/infer"


@dataclass(frozen=True)
class Peer:
    """``name`` is that of its module and, unless ``environment`` says another, of its virtual
    environment. ``binary_v2``: the Open Inference Protocol with its binary extension instead of
    the file as the body."""

    name: str
    path: str = "/predict"
    content_type: str = _OCTETS
    binary_v2: bool = False
    environment: str = ""

    @property
    def environment_name(self) -> str:
        return self.environment or self.name

    def request(self, file: bytes) -> tuple[dict[str, str], bytes]:
        """Headers and body that ask for ``file``."""
        headers = {"Content-Type": self.content_type}
        if not self.binary_v2:
            return headers, file
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "file",
                        "datatype": "UINT8",
                        "shape": [len(file)],
                        "parameters": {"binary_data_size": len(file)},
                    }
                ],
                "outputs": [{"name": "answer", "parameters": {"binary_data": True}}],
            }
        ).encode("ascii")
        return {**headers, "Inference-Header-Content-Length": str(len(head))}, head + file

    def answer(self, body: bytes) -> dict[str, Any]:
        """What ``benchmarks.peers.work`` answered, of a response's body."""
        if self.binary_v2:  # a JSON object, then the bytes of the output
            _, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
            body = body[end:]
        answer: dict[str, Any] = json.loads(body)
        return answer


PEERS = (
    Peer("fastapi"),
    Peer("bentoml"),
    Peer("litserve"),
    Peer("ray"),
    Peer("mlserver"),
    # its V1 protocol takes application/octet-stream for JSON
    Peer("kserve", path="/v1/models/mammograms:predict", content_type="application/dicom"),
    Peer("pytriton", path=_TRITON, binary_v2=True, environment="triton"),
    Peer("triton", path=_TRITON, binary_v2=True),
    Peer("torchserve", path="/predictions/mammograms"),
    Peer("keras"),
)
