"""Where spans go, as OpenTelemetry's variables say; nothing of OpenTelemetry is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tocsin_schema.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_DEFAULT: Final = "http://localhost:4318"


def collector_url(environment: Mapping[str, str]) -> str:
    """Say where spans go (https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp).

    Raises ConfigurationError, which names the variable and never its value, where that is no http or https URL.
    """
    if url := environment.get(_TRACES_ENDPOINT):
        return _checked(url, _TRACES_ENDPOINT)
    return _checked(f"{(environment.get(_ENDPOINT) or _DEFAULT).removesuffix('/')}/v1/traces", _ENDPOINT)


def without_user(url: str) -> str:
    """Give a URL as it may be shown: without user, password and query. Raises ValueError where it is no web address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("not an http or https URL")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _checked(url: str, variable: str) -> str:
    try:
        without_user(url)
    except ValueError:
        raise ConfigurationError(
            f"{variable} is not usable: it must be an http or https URL, such as {_DEFAULT}.",
            fix="Correct it, or set TOCSIN_TRACING to off.",
        ) from None
    return url
