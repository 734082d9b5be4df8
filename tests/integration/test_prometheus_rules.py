"""promtool accepts the configuration, the rules, their test cases, every panel's query and what the workers expose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from prometheus_client import REGISTRY, generate_latest

from tests.deployed_queries import ALERTS, PROMETHEUS, RECORDING, asked_by_dashboards, filled_in, shortened
from tests.servers import prometheus
from tests.servers.availability import or_skip
from tocsin_workers.supervising.exposition import Exposition

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))


@pytest.fixture(scope="module")
def promtool() -> Callable[..., CompletedProcess[str]]:
    unpacked = or_skip(prometheus.from_debian())

    def run(*arguments: str | Path, directory: Path | None = None, given: str | None = None) -> CompletedProcess[str]:
        ended = prometheus.promtool(unpacked, *arguments, directory=directory, given=given)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended

    return run


def test_prometheus_takes_its_configuration_and_the_rules_it_names(
    promtool: Callable[..., CompletedProcess[str]],
) -> None:
    said = promtool("check", "config", PROMETHEUS / "prometheus.yml").stdout
    assert "SUCCESS: 2 rule files found" in said
    promtool("check", "rules", "--lint=all", "--lint-fatal", RECORDING, ALERTS)


@pytest.mark.parametrize("cases", CASES, ids=lambda file: file.stem)
def test_alerts_fire_from_what_they_are_for_and_from_nothing_that_looks_alike(
    promtool: Callable[..., CompletedProcess[str]], cases: Path
) -> None:
    promtool("test", "rules", cases.name, directory=cases.parent)


def test_the_query_of_every_panel_is_understood(promtool: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    queries = [filled_in(asked.expr, job="tocsin", interval="1m") for asked in asked_by_dashboards()]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "panels.rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"SUCCESS: {len(queries)} rules found" in promtool("check", "rules", file).stdout


@pytest.mark.parametrize(
    ("series", "told"),
    [([], []), (["1 1"], [0]), (["0 0", "1 1", "0 0"], [2])],
    ids=["no pod", "all", "two of three do not"],
)
def test_where_there_is_no_pod_no_panel_says_that_all_answer(
    promtool: Callable[..., CompletedProcess[str]], tmp_path: Path, series: list[str], told: list[int]
) -> None:
    [asked] = [asked for asked in asked_by_dashboards() if asked.where.endswith("Pods that do not answer")]
    case = {
        "interval": "1m",
        "input_series": [
            {"series": f'up{{job="tocsin", instance="{number}"}}', "values": values}
            for number, values in enumerate(series)
        ],
        "promql_expr_test": [
            {
                "expr": filled_in(asked.expr, job="tocsin", interval="1m"),
                "eval_time": "1m",
                "exp_samples": [{"labels": "{}", "value": value} for value in told],
            }
        ],
    }
    (tmp_path / "case.yml").write_text(yaml.safe_dump({"tests": [case]}))
    promtool("test", "rules", "case.yml", directory=tmp_path)


def test_shortened_rules_are_rules(promtool: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    for file in (RECORDING, ALERTS):
        (tmp_path / file.name).write_text(shortened(file, 60))
        promtool("check", "rules", tmp_path / file.name)


def test_what_is_exposed_keeps_to_prometheuss_conventions(
    promtool: Callable[..., CompletedProcess[str]], database_url: str, tmp_path: Path
) -> None:
    supervisor = Exposition(tmp_path / "counters", database_url=database_url, broker_url=None)
    for registry in (supervisor.registry, REGISTRY):
        promtool("check", "metrics", given=generate_latest(registry).decode())
