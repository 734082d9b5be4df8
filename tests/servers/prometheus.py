"""Prometheus and promtool from Debian's packages: scrapes, reckons rules and fires alerts as the real one, being it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import httpx
import yaml

from tests.servers.availability import Unavailable
from tests.servers.debian_packages import DebianPackages
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.processes import unprivileged_account
from tests.servers.unpacked_server import UnpackedServer
from tocsin_console.embedded.account import give

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tocsin_console.embedded.account import Account

# Its other dependencies are the fonts and scripts of its web pages.
_PACKAGES: Final = DebianPackages("prometheus", ("prometheus",), prefix="libc6", only_missing=True)


def from_debian() -> Path | Unavailable:
    """Give the unpacked packages of Prometheus, for `Prometheus` and `promtool`; the first call downloads them."""
    unpacked = _PACKAGES.obtain()
    if isinstance(unpacked, Unavailable):
        return Unavailable(f"no Prometheus: {unpacked.reason}")
    return unpacked


def promtool(
    unpacked: Path, *arguments: str | Path, directory: Path | None = None, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run promtool with what it is given on standard input; its exit code is 0 where all is well."""
    return subprocess.run(
        [unpacked / "usr/bin/promtool", *arguments],
        cwd=directory,
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer, and its value."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that is pending or firing."""

    name: str
    state: Literal["pending", "firing"]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Prometheus(UnpackedServer):
    """A running Prometheus, which scrapes and evaluates once a second.

    `jobs` are the targets (host:port) of each job, `rules` the contents of rule files by their names.
    """

    name: ClassVar[str] = "prometheus"

    def __init__(
        self,
        unpacked: Path,
        *,
        jobs: Mapping[str, Sequence[str]],
        rules: Mapping[str, str],
        external_labels: Mapping[str, str],
    ) -> None:
        super().__init__(unpacked)
        self._jobs = jobs
        self._rules = rules
        self._external_labels = external_labels
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=PATIENCE_SECONDS)

    def query(self, expression: str) -> list[Sample]:
        """Ask an expression for its value now. ValueError where Prometheus does not understand it."""
        data = self._ask("/api/v1/query", query=expression)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(series["metric"], float(series["value"][1])) for series in data["result"]]

    def alerts(self) -> list[Alert]:
        """Give the alerts that are pending or firing now."""
        return [
            Alert(
                alert["labels"].pop("alertname"), alert["state"], alert["labels"], alert["annotations"]
            )
            for alert in self._ask("/api/v1/alerts")["alerts"]
        ]  # fmt: skip

    def unhealthy_rules(self) -> dict[str, str]:
        """Give what is wrong with each rule that could not be evaluated."""
        groups = self._ask("/api/v1/rules")["groups"]
        return {rule["name"]: rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")}

    def account(self) -> Account:
        """Anybody but root."""
        return unprivileged_account()

    def furnish(self, home: Path, programs: Path, account: Account) -> list[Path | str]:
        """Write its configuration and the rules."""
        for name, content in {**self._rules, "prometheus.yml": self._configuration()}.items():
            file = home / name
            file.write_text(content)
            give(file, account)
        return [
            programs / "usr/bin/prometheus",
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def answers(self) -> bool:
        """Whether it is ready."""
        try:
            return self._client.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End it."""
        self._client.close()
        super().stop()

    def _configuration(self) -> str:
        return yaml.safe_dump(
            {
                "global": {
                    "scrape_interval": "1s",
                    "scrape_timeout": "1s",
                    "evaluation_interval": "1s",
                    "external_labels": dict(self._external_labels),
                },
                "rule_files": sorted(self._rules),
                "scrape_configs": [
                    {"job_name": job, "static_configs": [{"targets": list(targets)}]}
                    for job, targets in self._jobs.items()
                ],
            }
        )

    def _ask(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(path, params=parameters).json()
        if answer["status"] != "success":
            raise ValueError(f"{answer['error']}: {parameters}")
        return answer["data"]
