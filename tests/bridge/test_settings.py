"""How the bridge is set up: what it refuses to start with, shows, and is documented to have."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr

from app.bridge import metrics
from app.bridge.settings import Settings
from tests.serving import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "bridge.md").read_text()
PREFIX = "MAMMOSEQ_BRIDGE_"


def rows(name: str) -> dict[str, str]:
    """First and second column of the documented rows whose first column matches ``name``."""
    return dict(re.findall(rf"^\| `({name})` \| ([^|]+?) \|", DOCUMENT, re.MULTILINE))


def test_every_setting_is_documented_with_its_default() -> None:
    expected = {}
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else str(field.default).rstrip("/")
        if field.default_factory is not None:
            expected[PREFIX + name.upper()] = "from the machine"
        else:
            expected[PREFIX + name.upper()] = "-" if field.default is None else f"`{default}`"
    assert rows(f"{PREFIX}[A-Z_]+") == {
        name: default.replace("`required`", "required") for name, default in expected.items()
    }


def test_every_metric_is_documented_with_its_type() -> None:
    expected = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase)
        for family in metric.describe()
    }
    assert rows("mammoseq_bridge_[a-z_]+") == expected


def ended(**settings: str) -> tuple[int, str]:
    """Start a bridge that does not get far; its exit status and what it printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAMMOSEQ_")}
    env |= {PREFIX + name.upper(): value for name, value in settings.items()}
    run = subprocess.run(
        [sys.executable, "-m", "app.bridge"],
        cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return run.returncode, run.stdout + run.stderr


ARCHIVE = {"archive_url": "http://127.0.0.1:9/dicom-web"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "MAMMOSEQ_BRIDGE_ARCHIVE_URL"),
        ({"archive_url": "ftp://127.0.0.1"}, "MAMMOSEQ_BRIDGE_ARCHIVE_URL"),
        ({"archive_url": "http://me:S3CRET@127.0.0.1/dicom-web"}, "MAMMOSEQ_BRIDGE_ARCHIVE_URL"),
        ({**ARCHIVE, "archive_user": "me"}, "ARCHIVE_PASSWORD"),
        ({**ARCHIVE, "archive_password": "S3CRET"}, "ARCHIVE_USER"),
        (
            {**ARCHIVE, "archive_user": "me", "archive_password": "S3CRET", "archive_token": "T"},
            "ARCHIVE_TOKEN",
        ),
        ({**ARCHIVE, "stable_seconds": "-1"}, "MAMMOSEQ_BRIDGE_STABLE_SECONDS"),
        ({**ARCHIVE, "objects": "sc"}, "MAMMOSEQ_BRIDGE_OBJECTS"),
        ({**ARCHIVE, "ca_file": "/no/such/file"}, "MAMMOSEQ_BRIDGE_CA_FILE"),
        ({**ARCHIVE, "lookback_days": "1000000"}, "MAMMOSEQ_BRIDGE_LOOKBACK_DAYS"),
        ({**ARCHIVE, "poll_seconds": "inf"}, "MAMMOSEQ_BRIDGE_POLL_SECONDS"),
        ({**ARCHIVE, "archive_token": "S3CRET\nX: y"}, "MAMMOSEQ_BRIDGE_ARCHIVE_TOKEN"),
        ({**ARCHIVE, "service_api_key": " "}, "MAMMOSEQ_BRIDGE_SERVICE_API_KEY"),
        ({**ARCHIVE, "host": "192.0.2.1"}, "MAMMOSEQ_BRIDGE_HOST 192.0.2.1, "),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_starts(settings: dict[str, str], named: str) -> None:
    status, printed = ended(**settings)
    assert status == 1
    assert named in printed
    assert "refused to start" in printed
    assert "S3CRET" not in printed


def test_the_end_of_the_line_of_a_key_that_came_from_a_file_is_no_part_of_it() -> None:
    """No header can hold it: the archive was `unreachable`."""
    settings = Settings(
        archive_url="http://127.0.0.1/dicom-web", archive_token="token\n", service_api_key="key\r\n"
    )
    assert settings.archive_token == SecretStr("token")
    assert settings.service_api_key == SecretStr("key")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_ends_well_and_each_line_of_its_log_is_json(number: signal.Signals) -> None:
    env = {**os.environ, f"{PREFIX}ARCHIVE_URL": ARCHIVE["archive_url"], f"{PREFIX}PORT": "0"}
    bridge = subprocess.Popen(
        [sys.executable, "-m", "app.bridge"],
        cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with bridge:
        assert bridge.stdout is not None
        settled, waiting = (json.loads(bridge.stdout.readline()) for _ in range(2))
        bridge.send_signal(number)
        for line in bridge.stdout:
            json.loads(line)
    assert bridge.returncode == 0
    assert settled["event"] == "settings"
    assert settled["settings"]["log_format"] == "json"
    assert {key: waiting[key] for key in ("level", "event", "side", "code")} == {
        "level": "warning", "event": "waiting", "side": "archive", "code": "unreachable",
    }  # fmt: skip


def test_a_wrong_setting_is_told_in_json_too() -> None:
    status, printed = ended(**ARCHIVE, port="70000")
    refusal = json.loads(printed)
    assert (status, refusal["event"]) == (1, "refused to start")
    assert "MAMMOSEQ_BRIDGE_PORT" in refusal["why"]


def test_secrets_are_not_printed() -> None:
    settings = Settings(
        archive_url="http://127.0.0.1/dicom-web",
        archive_user="me",
        archive_password="S3CRET-1",
        service_api_key="S3CRET-2",
        log_salt="S3CRET-3",
    )
    assert "S3CRET" not in settings.model_dump_json()
    assert "S3CRET" not in repr(settings)
