"""The bridge's settings: one object, from environment variables ``MAMMOSEQ_BRIDGE_*``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, HttpUrl, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.logs import LogFormat, off_terminal

_DAY_SECONDS = 86_400
_CENTURY_DAYS = 36_525


class Settings(BaseSettings):
    """Documented in ``docs/bridge.md``, which a test compares with this class."""

    model_config = SettingsConfigDict(env_prefix="MAMMOSEQ_BRIDGE_", frozen=True)

    archive_url: HttpUrl = Field(
        description="root of the archive's DICOMweb, such as `http://orthanc:8042/dicom-web`"
    )
    archive_user: str | None = Field(None, description="user for basic authentication")
    archive_password: SecretStr | None = Field(None, description="its password")
    archive_token: SecretStr | None = Field(
        None, description="bearer token, in place of user and password"
    )
    service_url: HttpUrl = Field(
        HttpUrl("http://127.0.0.1:8000"), description="where Mammoseq answers"
    )
    service_api_key: SecretStr | None = Field(
        None, description="key for the service, sent as `Authorization: Bearer`"
    )
    ca_file: Path | None = Field(
        None, description="PEM certificates to trust, on both sides, in place of the public ones"
    )
    timeout_seconds: float = Field(
        300, gt=0, le=_DAY_SECONDS, description="longest silence within one request"
    )
    poll_seconds: float = Field(
        15, gt=0, le=_DAY_SECONDS, description="pause between two looks at the archive"
    )
    stable_seconds: float = Field(
        60, ge=0, description="a study is complete when no mammogram came for so long"
    )
    lookback_days: int = Field(
        7,
        ge=0,
        le=_CENTURY_DAYS,
        description="only studies of the last so many days, by study date; 0: of any date",
    )
    max_prior_exams: int = Field(
        15, ge=0, description="earlier studies of the patient that are sent along, newest first"
    )
    max_images: int = Field(64, ge=1, description="images in one request to the service")
    max_body_bytes: int = Field(
        256 * 2**20, ge=1, description="bytes in one request to the service"
    )
    objects: Literal["sr,sc", "sr,sc,seg"] = Field(
        "sr,sc", description="what is stored: report and overlays, or segmentations as well"
    )
    host: str = Field("127.0.0.1", description="address for `/metrics` and `/healthz`")
    port: int = Field(8001, ge=0, le=65535, description="port for `/metrics` and `/healthz`")
    traces_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#@]+$",
        description="where traces go: the address of a collector for OTLP over HTTP, such as "
        "`http://otel-collector:4318/v1/traces`; needs the extra `tracing`",
    )
    log_format: LogFormat = Field(
        default_factory=off_terminal,
        description="`json` or `text`; unless set `text` on a terminal, else `json`",
    )
    log_salt: SecretStr | None = Field(
        None, description="key of the study hashes in the log; a new one at each start if not set"
    )

    @field_validator("archive_url", "service_url")
    @classmethod
    def _no_secret_in_url(cls, url: HttpUrl) -> HttpUrl:
        if url.username or url.password or url.query or url.fragment:
            raise ValueError("only scheme, host, port and path; user and password are settings")
        return url

    @field_validator("archive_token", "service_api_key")
    @classmethod
    def _one_line(cls, secret: SecretStr | None) -> SecretStr | None:
        """Without the end of the line of a file that it was read from: no header can hold that."""
        if secret is None:
            return None
        text = secret.get_secret_value().strip()
        if not text or not text.isprintable():
            raise ValueError("must be one line of text")
        return SecretStr(text)

    @model_validator(mode="after")
    def _one_way_to_authenticate(self) -> Settings:
        if self.archive_token and (self.archive_user or self.archive_password):
            raise ValueError("give ARCHIVE_TOKEN, or ARCHIVE_USER and ARCHIVE_PASSWORD, not both")
        if (self.archive_user is None) != (self.archive_password is None):
            raise ValueError("ARCHIVE_USER and ARCHIVE_PASSWORD need each other")
        return self
