"""The typed settings of one process, read once in `main` and passed on.

Nothing reads the environment at import. Operators' settings that belong to the whole installation live in the
ledger instead (`tocsin setting`).
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import platformdirs
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tocsin_schema.errors import ConfigurationError
from tocsin_schema.server_urls import HOW_TO_WRITE_PASSWORDS, is_plain_amqp_url, is_plain_postgres_url

if TYPE_CHECKING:
    from collections.abc import Callable

ENVIRONMENT_PREFIX = "TOCSIN_"

_LONGEST_URL = 8_192
#: From this likeness on (`difflib`'s ratio) a variable is one of ours, misspelled. `TOCSIN_TEST_DATABASE_URL` and
#: what Kubernetes sets for a service `tocsin-metrics` (`TOCSIN_METRICS_PORT_9191_TCP`) are less like any.
_MISSPELLED = 0.9


class LogFormat(StrEnum):
    """How log lines look: for a collector, or for a person at a terminal."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """From which level on log lines are written."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Tracing(StrEnum):
    """Where OpenTelemetry spans go: nowhere, or to a collector over OTLP."""

    OFF = "off"
    OTLP = "otlp"


def default_data_dir() -> Path:
    """Where the embedded mode keeps its database, keys and logs: the platform's user data directory."""
    return Path(platformdirs.user_data_dir("tocsin"))


class Settings(BaseSettings):
    """Every environment variable that Tocsin reads, each with the prefix `TOCSIN_`."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="ignore", frozen=True)

    database_url_file: Path | None = None
    """A file with what `database_url` would say, where that is unset."""
    database_url: Annotated[SecretStr | None, Field(validate_default=True)] = None
    """The ledger: a `postgresql://` URL. Unset: the embedded Postgres under `data_dir`."""
    broker_url_file: Path | None = None
    """A file with what `broker_url` would say, where that is unset."""
    broker_url: Annotated[SecretStr | None, Field(validate_default=True)] = None
    """The message broker: an `amqp://` or `amqps://` URL. Unset: queues in the ledger's own Postgres."""
    master_key: SecretStr | None = None
    """Master keys, as the content of the file that `tocsin key init` writes."""
    master_key_file: Path | None = None
    """The file that `tocsin key init` writes. Unset: `data_dir/master.key`."""
    data_dir: Path = Field(default_factory=default_data_dir)
    """Where the embedded mode keeps everything."""
    log_format: LogFormat = LogFormat.CONSOLE
    log_level: LogLevel = LogLevel.INFO
    """In upper or lower case."""
    log_addresses: bool = False
    """Whether log lines show mail addresses in full."""
    tracing: Tracing = Tracing.OFF
    """OpenTelemetry spans, sent as the standard variables `OTEL_EXPORTER_OTLP_…` say."""
    metrics_host: str = "127.0.0.1"
    """Where `/metrics` and the health endpoints listen; a pod sets `0.0.0.0`."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9191
    """The port of `/metrics` and the health endpoints; 0 turns them off."""
    worker_processes: Annotated[int, Field(ge=1, le=64)] = 2
    """Child processes of one `tocsin worker`."""
    worker_threads: Annotated[int, Field(ge=4, le=256)] = 8
    """Threads of one child process, which works up to 32 slices of sending for each."""
    shutdown_grace_seconds: Annotated[float, Field(ge=0)] = 20.0
    """How long a worker finishes what it has in hand after SIGTERM."""
    lease_seconds: Annotated[float, Field(ge=2)] = 30.0
    """How long a batch stays with a worker that no longer gives a sign of life."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _is_a_postgres_url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        value = value or _from_file(info.data.get("database_url_file"))
        value = _with_scheme(value, {"postgresql", "postgres"}, "postgresql://user:password@host:5432/database")
        return _plain(value, is_plain_postgres_url)

    @field_validator("broker_url")
    @classmethod
    def _is_an_amqp_url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        value = value or _from_file(info.data.get("broker_url_file"))
        value = _with_scheme(value, {"amqp", "amqps"}, "amqp://user:password@host:5672/vhost")
        return _plain(value, is_plain_amqp_url)

    @property
    def is_embedded(self) -> bool:
        """Whether the ledger is the embedded Postgres."""
        return self.database_url is None

    @property
    def key_file(self) -> Path:
        """The master key file in force."""
        return self.master_key_file or self.data_dir / "master.key"


def read_settings() -> Settings:
    """Read the settings from the environment.

    Raises ConfigurationError, which names the variable and never its value; also where one is misspelled, since
    without `TOCSIN_DATABASE_URL`, say, mail would wait in another ledger, which nobody looks at.
    """
    _refuse_misspelled()
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        variable = ENVIRONMENT_PREFIX + "_".join(str(step) for step in first["loc"]).upper()
        raise ConfigurationError(
            f"{variable} is not usable: {first['msg'].removeprefix('Value error, ')}.", fix="Correct it and try again."
        ) from None


def _refuse_misspelled() -> None:
    ours = [f"{ENVIRONMENT_PREFIX}{name}".upper() for name in Settings.model_fields]
    for name in os.environ:
        if not name.upper().startswith(ENVIRONMENT_PREFIX) or name.upper() in ours:
            continue
        if meant := get_close_matches(name.upper(), ours, n=1, cutoff=_MISSPELLED):
            raise ConfigurationError(
                f"{name} is no setting of Tocsin's.", fix=f"Rename it to {meant[0]}, or unset it, and try again."
            )


def _from_file(file: Path | None) -> SecretStr | None:
    """Read a secret; its file ends in a line break or not. Raises ValueError, which names the file only."""
    if file is None or file == Path():
        # A variable that is set to nothing is as good as unset, as those of the URLs themselves are.
        return None
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_LONGEST_URL + 1).strip()
    except OSError as error:
        raise ValueError(f"the file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the file {file} holds no text") from None
    if not text or len(text) > _LONGEST_URL or len(text.split()) > 1:
        raise ValueError(f"the file {file} does not hold one URL")
    return SecretStr(text)


def _with_scheme(value: SecretStr | None, schemes: set[str], example: str) -> SecretStr | None:
    if value is None or not value.get_secret_value():
        return None
    try:
        scheme = urlsplit(value.get_secret_value()).scheme
    except ValueError:
        # The library's own words quote the URL, password and all.
        scheme = ""
    if scheme not in schemes:
        raise ValueError(f"it must look like {example}")
    return value


def _plain(value: SecretStr | None, is_plain: Callable[[str], bool]) -> SecretStr | None:
    if value is not None and not is_plain(value.get_secret_value()):
        raise ValueError(f"where its password ends cannot be told; {HOW_TO_WRITE_PASSWORDS}")
    return value
