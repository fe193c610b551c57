"""The service's settings: one object, from environment variables ``MAMMOSEQ_*``."""

from __future__ import annotations

import math
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.imaging.header import Unusual
from app.logs import LogFormat, off_terminal
from app.machine import available_cores, available_memory, has_gpu, processes_for

_ADDRESS = r"^https?://[^\s?#@]+$"


def _processes(chosen: dict[str, Any]) -> int:
    """A process on a GPU would hold a CUDA session and its memory, so there one does it all."""
    if chosen["device"] == "cuda" or (chosen["device"] == "auto" and has_gpu()):
        return 1
    return processes_for(available_cores(), available_memory())


def _workers(chosen: dict[str, Any]) -> int:
    processes: int = chosen["processes"]
    return math.ceil(available_cores() / processes)


def _is_network(text: str) -> bool:
    """Whether it is an address or a network that is not of all addresses."""
    try:
        return ip_network(text).prefixlen > 0
    except ValueError:
        return False


class Settings(BaseSettings):
    """Documented in ``docs/settings.md``, which a test compares with this class."""

    model_config = SettingsConfigDict(env_prefix="MAMMOSEQ_", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="port for `/metrics` and `/healthz` alone; unless set they are on the other",
    )
    log_format: LogFormat = Field(
        default_factory=off_terminal,
        description="`json` or `text`; unless set `text` on a terminal, else `json`",
    )
    traces_url: str | None = Field(
        None,
        pattern=_ADDRESS,
        description="where traces go: the address of a collector for OTLP over HTTP, such as "
        "`http://otel-collector:4318/v1/traces`; needs the extra `tracing`. There are none unless "
        "set",
    )
    model_store: Path = Field(Path("model_store"), description="folder of model bundles")
    model: str | None = Field(
        None,
        description="model that answers, where the store holds several: `name` for its newest "
        "version, whenever that comes, or `name/version` (docs/models.md)",
    )
    more_models: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="models that answer requests that ask for them by `?model=`, as `name` or "
        "`name/version`, separated by commas",
    )
    canary: str | None = Field(
        None, description="model that answers a share of the requests that name none"
    )
    canary_share: float = Field(
        0.05, ge=0, le=1, description="that share; the same files always get the same model"
    )
    shadow: str | None = Field(
        None,
        description="model that scores in spare time what was answered, and is only compared in "
        "metrics",
    )
    store_seconds: float = Field(
        5, ge=0, description="how often the store is looked at for new versions; 0: never"
    )
    model_key: Path | None = Field(
        None,
        description="file of public keys (PEM), one of which must have signed the bundle "
        "(docs/signed-bundles.md)",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`cuda` refuses to start when the GPU is not really in use"
    )
    processes: int = Field(
        default_factory=_processes,
        ge=1,
        description="processes that share the port; unless set 1 up to 5 cores and on a GPU, "
        "else about one for 4 cores, each with 512 MiB of memory at least",
    )
    workers: int = Field(
        default_factory=_workers,
        ge=1,
        description="threads of a process that compute, each with a request of its own; unless "
        "set the cores over the processes, rounded up",
    )
    ort_threads: int = Field(
        1,
        ge=1,
        description="threads of ONNX Runtime for one image on CPU; 1 gives the most images a "
        "second, more a faster answer to a lone request",
    )
    max_batch: int | None = Field(
        None, ge=1, description="largest encoder batch; 1 on CPU and 32 on GPU unless set"
    )
    max_queue_seconds: float = Field(
        2.0,
        gt=0,
        description="how long a request may be expected to wait for a worker; beyond: `overloaded`",
    )
    max_requests: int = Field(64, ge=1, description="requests in flight; beyond: `overloaded`")
    max_bytes_in_flight: int = Field(
        2**30,
        ge=1,
        description="bodies of requests in flight, and pixels that clients have not yet taken, "
        "bytes; beyond: `overloaded`",
    )
    drain_seconds: float = Field(
        0,
        ge=0,
        le=60,
        description="after SIGTERM, how long `/healthz/ready` answers 503 while requests are still "
        "accepted: until a load balancer has noticed. Then what is under way is finished",
    )
    remembered_bytes: int = Field(
        32 * 2**20,
        ge=0,
        description="memory for images seen before, whose features are not computed again; 0: off",
    )
    max_body_bytes: int = Field(
        256 * 2**20, ge=1, description="largest request body; beyond: `body_too_large`"
    )
    max_pixels: int = Field(
        50_000_000, ge=1, description="pixels of one image, read before decoding"
    )
    rate_limit: int | None = Field(
        None,
        ge=1,
        description="requests a minute of a user, key or token, or of an address where nobody is "
        "asked for one; each process counts for itself; beyond: `rate_limited`; no limit unless "
        "set",
    )
    max_exams: int = Field(16, ge=1, description="exams in one series")
    max_images: int = Field(64, ge=1, description="images in one series")
    overlay_long_side: int = Field(
        320, ge=64, le=8192, description="default long side of an overlay, pixels"
    )
    accept: Annotated[frozenset[Unusual], NoDecode] = Field(
        frozenset(),
        description="what is scored although the model was not made for it, separated by commas: "
        "`for_processing`, `tomosynthesis`, `spot_view`, `magnification`, `specimen`, "
        "`biopsy_view`, `contrast_image`, `other_modality`",
    )
    gate: Literal["refuse", "warn"] = Field(
        "refuse",
        description="what the quality gate does unless a request says `?gate=`; `warn` is for "
        "research",
    )

    access: Literal["auto", "open", "login"] = Field(
        "auto",
        description="who may come in: `open` anybody, `login` only with a session or a key; `auto` "
        "is `open` on a loopback address unless something below is set",
    )
    users: SecretStr | None = Field(
        None,
        description="`name:hash` of who may log in, separated by white space; "
        "`python -m app.access user NAME` makes one",
    )
    users_file: Path | None = Field(
        None, description="the same, one a line; read again when it changes"
    )
    api_keys: SecretStr | None = Field(
        None,
        description="`name:hash` of keys for machines, separated by white space; "
        "`python -m app.access key NAME` makes one",
    )
    api_keys_file: Path | None = Field(
        None, description="the same, one a line; read again when it changes"
    )
    session_secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="signs sessions, 32 characters at least; replicas must share it. Unless set "
        "a new one at each start, which ends all sessions",
    )
    session_hours: float = Field(8, gt=0, le=24 * 30, description="how long a login lasts")
    trusted_proxies: str = Field(
        "",
        description="addresses and networks of proxies, separated by commas, whose "
        "`X-Forwarded-For` and `X-Forwarded-Proto` are believed",
    )
    public_url: str | None = Field(
        None,
        pattern=_ADDRESS,
        description="where browsers find the service, such as `https://mammoseq.example.org`",
    )
    oidc_issuer: str | None = Field(
        None,
        pattern=_ADDRESS,
        description="OpenID provider to log in with; needs client id and secret",
    )
    oidc_client_id: str | None = Field(None, min_length=1, description="the service's name there")
    oidc_client_secret: SecretStr | None = Field(
        None, min_length=1, description="the service's secret there"
    )
    oidc_audience: str | None = Field(
        None,
        min_length=1,
        description="the service's name in access tokens (JWT) of that provider, by which machines "
        "come in; needs the issuer only",
    )
    oidc_ca_file: Path | None = Field(
        None, description="PEM certificates to trust there, in place of the public ones"
    )

    audit_file: str | None = Field(
        None,
        description="where a line is written for each prediction and login; `-`: standard output "
        "(docs/audit.md)",
    )
    audit_failure: Literal["refuse", "continue"] = Field(
        "refuse",
        description="what happens while that cannot be written: `refuse` answers "
        "`audit_unavailable`, `continue` only counts",
    )

    @field_validator("accept", "more_models", mode="before")
    @classmethod
    def _separate(cls, value: Any) -> Any:
        return (
            [part.strip() for part in value.split(",") if part.strip()]
            if isinstance(value, str)
            else value
        )

    @field_validator("*", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        """Other bytes could not be printed at the start."""
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise ValueError("must be UTF-8") from None
        return value

    @field_validator("metrics_port")
    @classmethod
    def _own(cls, value: int | None, others: ValidationInfo) -> int | None:
        if value is not None and value == others.data.get("port"):
            raise ValueError("must not be that of MAMMOSEQ_PORT")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        """What uvicorn takes for no network it compares as a word, which nobody's address is; and
        with `*`, or a network of all addresses, every caller could say who it is."""
        for part in value.split(","):
            if value and not _is_network(part.strip()):
                raise ValueError("addresses and networks, such as 10.0.0.5, 10.0.0.0/8")
        return value

    def share_of(self, limit: int) -> int:
        """What one process may take of a limit of the whole service."""
        return math.ceil(limit / self.processes)
