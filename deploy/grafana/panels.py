"""Panels and dashboards in the words of this project, and as the JSON that Grafana reads.

A dashboard is rows of panels; panels are laid out from left to right on Grafana's 24 columns. Nothing holds an id of an
installation: the data source, the job and the profiles are the dashboard's variables.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never

SCHEMA_VERSION = 41
"""Grafana 12's; older ones are migrated by it, newer ones migrate this."""
COLUMNS = 24
ROW_HEIGHT = 1
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Kind(StrEnum):
    """How a panel shows its queries."""

    STAT = "stat"
    TIME_SERIES = "timeseries"
    BAR_GAUGE = "bargauge"
    TABLE = "table"


class Unit(StrEnum):
    """Grafana's names of units."""

    COUNT = "short"
    PER_SECOND = "cps"
    PER_MINUTE = "cpm"
    SECONDS = "s"
    RATIO = "percentunit"
    NONE = "none"


class Color(StrEnum):
    """What a value means."""

    GOOD = "green"
    WARN = "orange"
    BAD = "red"
    PLAIN = "text"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and the legend of its series."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True, slots=True)
class Step:
    """From which value on a panel has a color."""

    value: float
    color: Color


@dataclass(frozen=True, slots=True)
class Word:
    """What is shown instead of a value."""

    value: int
    text: str
    color: Color


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `description` says what it means and when it is bad; it is shown on hovering."""

    title: str
    description: str
    kind: Kind
    unit: Unit
    queries: tuple[Query, ...]
    width: int
    height: int = 8
    base: Color = Color.PLAIN
    """The color below the first step."""
    steps: tuple[Step, ...] = ()
    words: tuple[Word, ...] = ()
    no_value: str | None = None
    """What is said where there is no data."""
    stacked: bool = False
    hidden_columns: tuple[str, ...] = ()
    """Columns of a table that say nothing."""
    maximum: float | None = None


def stat(
    title: str,
    description: str,
    unit: Unit,
    *queries: Query,
    width: int = 4,
    base: Color = Color.PLAIN,
    steps: tuple[Step, ...] = (),
    words: tuple[Word, ...] = (),
    no_value: str | None = None,
) -> Panel:
    """Give a low panel with one number for each series."""
    return Panel(
        title, description, Kind.STAT, unit, queries,
        width=width, height=4, base=base, steps=steps, words=words, no_value=no_value,
    )  # fmt: skip


def time_series(
    title: str, description: str, unit: Unit, *queries: Query, width: int = 8, stacked: bool = False
) -> Panel:
    """Give a panel that shows how its series went."""
    return Panel(title, description, Kind.TIME_SERIES, unit, queries, width=width, stacked=stacked)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; `uid` is its address, the same on every installation."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> list[Panel]:
        """All of its panels, in order."""
        return [panel for row in self.rows for panel in row.panels]

    def as_json(self) -> dict[str, Any]:
        """Give what Grafana reads."""
        return {
            "id": None,
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["tocsin"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "",
            "links": [
                {"type": "dashboards", "title": "Tocsin", "tags": ["tocsin"], "asDropdown": True, "keepTime": True}
            ],
            "templating": {"list": [_datasource_variable(), _job_variable(), _profile_variable()]},
            "annotations": {"list": []},
            "panels": _laid_out(self.rows),
        }


def _laid_out(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": ROW_HEIGHT},
                "panels": [],
            }
        )
        top += ROW_HEIGHT
        left = line_height = 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top += line_height
                left = line_height = 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            panels.append({"id": len(panels) + 1, **_panel(panel), "gridPos": place})
            left += panel.width
            line_height = max(line_height, panel.height)
        top += line_height
    return panels


def _panel(panel: Panel) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [_target(panel, place, query) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }
    if panel.kind is Kind.TABLE:
        shown["transformations"] = [
            {"id": "organize", "options": {"excludeByName": dict.fromkeys(("Time", *panel.hidden_columns), True)}}
        ]
    return shown


def _target(panel: Panel, place: int, query: Query) -> dict[str, Any]:
    is_now = panel.kind is not Kind.TIME_SERIES
    return {
        "refId": chr(ord("A") + place),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": is_now,
        "range": not is_now,
        "format": "table" if panel.kind is Kind.TABLE else "time_series",
    }


def _field(panel: Panel) -> dict[str, Any]:
    field: dict[str, Any] = {
        "unit": panel.unit.value,
        "min": 0,
        "color": {"mode": "palette-classic" if panel.kind is Kind.TIME_SERIES else "thresholds"},
        "thresholds": {
            "mode": "absolute",
            "steps": [
                {"value": None, "color": panel.base.value},
                *({"value": step.value, "color": step.color.value} for step in panel.steps),
            ],
        },
    }
    if panel.maximum is not None:
        field["max"] = panel.maximum
    if panel.no_value is not None:
        field["noValue"] = panel.no_value
    if panel.words:
        options = {str(word.value): {"text": word.text, "color": word.color.value} for word in panel.words}
        field["mappings"] = [{"type": "value", "options": options}]
    if panel.kind is Kind.TIME_SERIES:
        field["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
    return field


def _options(panel: Panel) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case Kind.STAT:
            return {"reduceOptions": last, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
        case Kind.TIME_SERIES:
            return {
                "legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"]},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case Kind.BAR_GAUGE:
            return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic"}
        case Kind.TABLE:
            return {"showHeader": True, "cellHeight": "sm"}
        case _:
            assert_never(panel.kind)


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _job_variable() -> dict[str, Any]:
    return _variable("job", "Installation", "label_values(tocsin_build_info, job)", many=False)


def _profile_variable() -> dict[str, Any]:
    named = "tocsin_messages_total|tocsin_mailbox_resting|tocsin_profile_paused"
    query = f'label_values({{__name__=~"{named}", job="$job"}}, profile)'
    return _variable("profile", "Profile", query, many=True)


def _variable(name: str, label: str, query: str, *, many: bool) -> dict[str, Any]:
    everything = {"includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}} if many else {}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": many,
        **everything,
    }
