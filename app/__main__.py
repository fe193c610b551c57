"""``python -m app``: verify the bundle, start the sessions, then answer."""

from __future__ import annotations

import logging
import signal
import sys

import uvicorn
from pydantic import ValidationError

from app.api.application import create_application
from app.api.bodies import LargeBodyProtocol
from app.bundle import BundleError, find_bundle, load_bundle
from app.imaging.preprocess import PREPROCESSING_VERSION
from app.inference.pipeline import Pipeline
from app.inference.sessions import DeviceError, GraphError
from app.memory import give_back, use_one_heap
from app.settings import Settings

_GRACE_SECONDS = 45  # for requests under way at SIGTERM


def main() -> int:
    use_one_heap()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = Settings()
    except ValidationError as error:
        for fault in error.errors():
            name = f"MAMMOSEQ_{'.'.join(map(str, fault['loc']))}".upper()
            print(f"refused to start: {name}: {fault['msg']}", file=sys.stderr)
        return 1
    print("settings", settings.model_dump_json(), flush=True)
    try:
        bundle = load_bundle(find_bundle(settings.model_store, settings.model))
        if bundle.manifest.preprocessing.version != PREPROCESSING_VERSION:
            raise BundleError(
                f"{bundle.folder} needs preprocessing {bundle.manifest.preprocessing.version}, "
                f"this service has {PREPROCESSING_VERSION}"
            )
        pipeline = Pipeline(bundle, settings)
    except (BundleError, DeviceError, GraphError) as error:
        print(f"refused to start: {error}", file=sys.stderr)
        return 1
    # uvicorn finishes what is under way and then raises the signal again; it was asked to stop
    signal.signal(signal.SIGTERM, lambda *_: None)
    manifest = bundle.manifest
    print(
        f"model {manifest.name}/{manifest.version} sha256={bundle.sha256[:12]} "
        f"on {pipeline.sessions.provider}; {manifest.intended_use}",
        flush=True,
    )
    give_back()  # what reading the graphs took
    http = type("Http", (LargeBodyProtocol,), {"most_bytes": settings.max_body_bytes})
    uvicorn.run(
        create_application(pipeline, settings),
        host=settings.host,
        port=settings.port,
        access_log=False,  # metrics count; a path or query may hold anything
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
        http=http,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
