"""The handler that TorchServe's workers run (``torchserve.py`` archives it)."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.peers.work import Work


class Mammograms:
    def initialize(self, context: Any) -> None:
        self._work = Work()

    def handle(self, requests: list[dict[str, bytearray]], context: Any) -> list[str]:
        return [json.dumps(self._work.answer(bytes(request["body"]))) for request in requests]
