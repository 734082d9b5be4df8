"""Writes the dashboards that Grafana reads: `python -m deploy.grafana.write`, in the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploy.grafana.operator_dashboard import OPERATOR
from deploy.grafana.platform_dashboard import PLATFORM

if TYPE_CHECKING:
    from deploy.grafana.panels import Dashboard

DIRECTORY: Final = Path(__file__).parent / "dashboards"
DASHBOARDS: Final = {DIRECTORY / "operator.json": OPERATOR, DIRECTORY / "platform.json": PLATFORM}


def as_text(dashboard: Dashboard) -> str:
    """Give a dashboard as its file has it."""
    return json.dumps(dashboard.as_json(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for file, dashboard in DASHBOARDS.items():
        file.write_text(as_text(dashboard), encoding="utf-8")
