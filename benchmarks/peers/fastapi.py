"""The endpoint that most people write: a sync function in FastAPI, a uvicorn process per core.

uvicorn's docs: https://www.uvicorn.org/deployment/#running-programmatically
"""

from __future__ import annotations

import sys
from typing import Annotated

import uvicorn
from fastapi import Body, FastAPI
from fastapi.responses import JSONResponse

from benchmarks.peers.work import Work

application = FastAPI()
_work = Work()


@application.post("/predict")
def predict(data: Annotated[bytes, Body(media_type="application/octet-stream")]) -> JSONResponse:
    return JSONResponse(_work.answer(data))


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.peers.fastapi:application",
        port=int(sys.argv[1]),
        workers=int(sys.argv[2]),
        access_log=False,
        log_level="warning",
    )
