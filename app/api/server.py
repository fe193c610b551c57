"""One process that serves: verify the bundle, start the sessions, then answer."""

from __future__ import annotations

import json
import sys

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from app import logs, metrics
from app.access.entrance import Entrance
from app.access.faults import AccessError
from app.access.hosts import is_loopback
from app.access.onetime import USER
from app.api.admit import image_route
from app.api.application import create_application
from app.api.audit import start_record
from app.api.bodies import LargeBodyProtocol
from app.api.processes import (
    PortError,
    end_with_supervisor,
    first_to,
    server_options,
    shared_folder,
)
from app.api.traces import TracesError
from app.api.watch import check_port
from app.audit.log import AuditError, Log
from app.bundle import BundleError
from app.inference.models import Models
from app.inference.sessions import DeviceError, GraphError
from app.inference.store import Store
from app.machine import available_cores
from app.memory import give_back
from app.settings import Settings

_REFUSALS = (
    AccessError,
    AuditError,
    BundleError,
    DeviceError,
    GraphError,
    PortError,
    TracesError,
)
_FIRST_LOOK = """\
Nobody is named who may log in. For a first look there is the user `{user}` with the password

    {password}

It is good for one login. For users that stay, run `python -m app.access user NAME` and put the
line that it prints into MAMMOSEQ_USERS, or into the file of MAMMOSEQ_USERS_FILE
(docs/security.md)."""


def serve(settings: Settings) -> int:
    """Serve in this process until SIGTERM; returns the exit status."""
    try:
        application = _started(settings)
    except _REFUSALS as error:
        logs.refused(settings.log_format, str(error))
        return 1
    uvicorn.run(application, http=LargeBodyProtocol, **server_options(settings))
    return 0


def application() -> FastAPI:
    """The application in a process of several, as uvicorn asks for it there. Ends a process that
    must not serve with the status at which uvicorn starts no other."""
    end_with_supervisor()
    settings = Settings()
    logs.configure(settings.log_format)
    metrics.forget_the_dead()
    try:
        return _started(settings)
    except _REFUSALS as error:
        if first_to("refuse"):
            logs.refused(settings.log_format, str(error))
        sys.exit(STARTUP_FAILURE)


def _started(settings: Settings) -> FastAPI:
    """The application with all that it needs. Raises one of ``_REFUSALS``."""
    check_port(settings)
    entrance = Entrance(settings, shared_folder)
    store = Store(settings)
    models = Models(*store.start())
    LargeBodyProtocol.most_bytes = settings.max_body_bytes
    LargeBodyProtocol.takes_images = staticmethod(lambda path: image_route(path) is not None)
    if first_to("print"):
        _print_start(models, settings)
        _print_access(entrance, settings)
    give_back()  # what reading the graphs took
    application = create_application(models, settings, entrance, store)
    log: Log | None = application.state.audit
    if log is not None and first_to("audit"):
        log.write_now(start_record(models.default.bundle, application.version))
    return application


def _print_start(models: Models, settings: Settings) -> None:
    machine = {
        "cores": available_cores(),
        "processes": settings.processes,
        "workers_per_process": settings.workers,
        "ort_threads_per_call": settings.ort_threads,
        "max_batch": models.compute.max_batch,
        "provider": models.default.sessions.provider,
        "requests_per_process": settings.share_of(settings.max_requests),
        "bytes_in_flight_per_process": settings.share_of(settings.max_bytes_in_flight),
        "remembered_bytes_per_process": settings.share_of(settings.remembered_bytes),
    }
    for pipeline in models.all:
        manifest, roles = pipeline.bundle.manifest, models.roles(pipeline)
        signer = pipeline.bundle.signed_by
        model = {
            "model": pipeline.model,
            "roles": roles,
            "sha256": pipeline.bundle.sha256,
            "signed_by": signer,
            "provider": pipeline.sessions.provider,
            "intended_use": manifest.intended_use,
        }
        others = "" if roles == ["default"] else f" ({', '.join(roles)})"
        text = (
            f"model {pipeline.model}{others} sha256={pipeline.bundle.sha256[:12]} "
            f"{f'signed by {signer[:12]} ' if signer else ''}"
            f"on {pipeline.sessions.provider}; {manifest.intended_use}"
        )
        logs.at_start(settings.log_format, "model", model, text)
    logs.at_start(settings.log_format, "machine", machine, f"machine {json.dumps(machine)}")


def _print_access(entrance: Entrance, settings: Settings) -> None:
    access = {
        "access": "login" if entrance.required else "open",
        "users": len(entrance.users),
        "api_keys": len(entrance.keys),
        "oidc": entrance.provider is not None,
        "tokens": entrance.token_issuer is not None,
    }
    form = settings.log_format
    logs.at_start(form, "access", access, f"access {json.dumps(access)}")
    if not entrance.required and not is_loopback(settings.host):
        text = f"open to everybody who reaches {settings.host}: MAMMOSEQ_ACCESS=open"
        logs.at_start(form, text, {}, text)
    if entrance.one_time is not None:
        once = {"user": USER, "password": entrance.one_time.made()}
        logs.at_start(form, "password for one login", once, _FIRST_LOOK.format(**once))
