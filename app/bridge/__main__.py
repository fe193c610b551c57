"""``python -m app.bridge``: have an archive's complete mammography studies read, for ever."""

from __future__ import annotations

import json
import logging
import secrets
import signal
import ssl
import sys

import httpx
from pydantic import SecretStr, ValidationError

from app import logs
from app.bridge import metrics
from app.bridge.dicomweb import Archive
from app.bridge.faults import Side
from app.bridge.observe import Pulse, serve
from app.bridge.rounds import run
from app.bridge.service import Service
from app.bridge.settings import Settings
from app.bridge.traces import collector_of


def main() -> int:
    # Whatever is under way may be left at any point: it is done again, to the same results
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    for name in ("httpx", "httpcore"):  # they log addresses, and those hold patients' ids
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        settings = Settings()
    except ValidationError as error:
        logs.wrong_settings("MAMMOSEQ_BRIDGE_", error)
        return 1
    form = settings.log_format
    logs.configure(form)
    try:
        trust = ssl.create_default_context(cafile=settings.ca_file)
    except OSError:
        logs.refused(form, "MAMMOSEQ_BRIDGE_CA_FILE cannot be read")
        return 1
    try:
        collector = collector_of(settings)
    except ImportError:
        logs.refused(
            form,
            "MAMMOSEQ_BRIDGE_TRACES_URL needs the extra `tracing`: pip install 'mammoseq[tracing]'",
        )
        return 1
    told = settings.model_dump_json()
    logs.at_start(form, "settings", {"settings": json.loads(told)}, f"settings {told}")
    pulse = Pulse(settings.timeout_seconds)
    try:
        server = serve(settings.host, settings.port, pulse)
    except OSError as error:
        logs.refused(
            form,
            f"MAMMOSEQ_BRIDGE_HOST {settings.host}, MAMMOSEQ_BRIDGE_PORT {settings.port}: "
            f"{error.strerror}",
        )
        return 1
    archive = _client("archive", str(settings.archive_url), settings, trust, pulse)
    service = _client("service", str(settings.service_url), settings, trust, pulse)
    _authenticate(archive, service, settings)
    salt = _secret(settings.log_salt) or secrets.token_hex()
    try:
        with server, archive, service:
            client = Service(service, settings.objects)
            run(Archive(archive), client, settings, salt.encode(), pulse, collector)
    finally:  # SystemExit: of itself it never ends
        if collector is not None:
            collector.stop()
    return 0


def _client(
    side: Side, url: str, settings: Settings, trust: ssl.SSLContext, pulse: Pulse
) -> httpx.Client:
    def answered(response: httpx.Response) -> None:
        pulse.beat()
        if response.is_success:
            metrics.LAST_SUCCESS.labels(side).set_to_current_time()

    return httpx.Client(
        base_url=url,
        timeout=httpx.Timeout(settings.timeout_seconds, connect=10.0),
        verify=trust,
        trust_env=False,  # settings have one home
        event_hooks={"response": [answered]},
    )


def _authenticate(archive: httpx.Client, service: httpx.Client, settings: Settings) -> None:
    if settings.archive_user is not None:
        archive.auth = (settings.archive_user, _secret(settings.archive_password))
    if settings.archive_token is not None:
        archive.headers["Authorization"] = f"Bearer {_secret(settings.archive_token)}"
    if settings.service_api_key is not None:
        service.headers["Authorization"] = f"Bearer {_secret(settings.service_api_key)}"


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


if __name__ == "__main__":
    sys.exit(main())
