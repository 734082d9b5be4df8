"""What the files under deploy/prometheus and deploy/grafana ask Prometheus, for the tests that hold them to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.grafana.write import DASHBOARDS
from tocsin_workers.metrics import METRICS, Kind

ROOT: Final = Path(__file__).resolve().parents[1]
PROMETHEUS: Final = ROOT / "deploy/prometheus"
RECORDING: Final = PROMETHEUS / "recording.rules.yml"
ALERTS: Final = PROMETHEUS / "alerts.rules.yml"

_SELECTOR = re.compile(r"\b([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_NAME = re.compile(r"(?<![\w:$.])[a-zA-Z_:][\w:]*\b(?!\s*\()")
_KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "offset", "bool"}
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_MATCHERS = re.compile(r"\{[^}]*\}")
_RANGE = re.compile(r"\[(\d+)([smhd])\]")
_OFFSET = re.compile(r"\boffset (\d+)([smhd])\b")
_THRESHOLD = re.compile(r"\b(\d+) \* (60|3600|86400)\b")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Asked:
    """An expression and where it stands."""

    where: str
    expr: str


def groups(file: Path) -> list[dict[str, Any]]:
    """Give the groups of a file of rules."""
    return yaml.safe_load(file.read_text())["groups"]


def rules(file: Path) -> list[dict[str, Any]]:
    """Give the rules of a file, of all its groups."""
    return [rule for group in groups(file) for rule in group["rules"]]


def asked_by_rules() -> list[Asked]:
    """Give the expressions of all rules."""
    return [
        Asked(str(rule.get("record") or rule.get("alert")), rule["expr"])
        for file in (RECORDING, ALERTS)
        for rule in rules(file)
    ]


def asked_by_dashboards() -> list[Asked]:
    """Give the expressions of all panels, with the dashboards' variables in them."""
    return [
        Asked(f"{dashboard.title} / {row.title} / {panel.title}", query.expr)
        for dashboard in DASHBOARDS.values()
        for row in dashboard.rows
        for panel in row.panels
        for query in panel.queries
    ]


def filled_in(expr: str, *, job: str, interval: str) -> str:
    """Put values in the place of a dashboard's variables, as Grafana does: all profiles."""
    values = {"$__rate_interval": interval, "$profile": ".*", "$job": job}
    for variable, value in values.items():
        expr = expr.replace(variable, value)
    return expr


def names_in(expr: str) -> set[str]:
    """Give the metrics that an expression asks for."""
    bare = _RANGE.sub("", _OFFSET.sub("", _GROUPING.sub("", _MATCHERS.sub("", expr))))
    return set(_NAME.findall(bare.replace("[$__rate_interval]", ""))) - _KEYWORDS


def matchers_in(expr: str) -> list[tuple[str, str, str]]:
    """Give what an expression wants of labels: metric, label and value, which may be a regular expression."""
    return [
        (name, label, value)
        for name, matchers in _SELECTOR.findall(expr)
        for label, _, value in _MATCHER.findall(matchers)
    ]


def grouped_by(expr: str) -> set[str]:
    """Give the labels that an expression groups or joins by."""
    return {label.strip() for labels in _GROUPING.findall(expr) for label in labels.split(",") if label.strip()}


def known_labels() -> dict[str, set[str]]:
    """Give every metric there is, and its labels: the code's, the recorded ones, and Prometheus's own."""
    scraped = {"job", "instance"}
    known = {"up": scraped, "scrape_duration_seconds": scraped}
    known["ALERTS"] = {"alertname", "alertstate", "severity", *scraped}
    for metric in METRICS:
        labels = {*metric.labels, *scraped}
        if metric.kind is Kind.HISTOGRAM:
            known |= {f"{metric.name}_sum": labels, f"{metric.name}_count": labels}
            known[f"{metric.name}_bucket"] = {*labels, "le"}
        else:
            known[metric.name] = labels
    for rule in rules(RECORDING):
        known[rule["record"]] = grouped_by(rule["expr"]) - {"le"}
    return known


def shortened(file: Path, factor: float) -> str:
    """Give a file of rules in which time goes by `factor` times faster, for tests that have no quarter of an hour.

    Every `for`, every range and every threshold of time (written as so many times 60, 3600 or 86400 seconds) is
    divided. No range becomes shorter than 12 s: the ledger is counted every five. No threshold becomes shorter than
    15 s: when the sweeper was last there is known to a few seconds only.
    """

    def shorter(match: re.Match[str]) -> str:
        return f"[{_milliseconds(match, 12)}]"

    def earlier(match: re.Match[str]) -> str:
        return f"offset {_milliseconds(match, 12)}"

    def _milliseconds(match: re.Match[str], least: float) -> str:
        return f"{round(max(least, int(match[1]) * _SECONDS[match[2]] / factor) * 1000)}ms"

    def lower(match: re.Match[str]) -> str:
        return f"{max(15.0, int(match[1]) * int(match[2]) / factor):g}"

    content = yaml.safe_load(file.read_text())
    for group in content["groups"]:
        for rule in group["rules"]:
            rule["expr"] = _THRESHOLD.sub(lower, _OFFSET.sub(earlier, _RANGE.sub(shorter, rule["expr"])))
            if "for" in rule:
                match = re.fullmatch(r"(\d+)([smhd])", rule["for"])
                assert match is not None
                rule["for"] = _milliseconds(match, 0)
    return yaml.safe_dump(content)
