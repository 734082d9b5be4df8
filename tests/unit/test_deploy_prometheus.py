"""Rules and dashboards ask for what the code tells, and say what a person can do; Prometheus itself tries the rest."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
import yaml

from deploy.grafana.panels import COLUMNS, DATASOURCE, Dashboard
from deploy.grafana.write import DASHBOARDS, as_text
from tests.deployed_queries import (
    ALERTS,
    PROMETHEUS,
    RECORDING,
    ROOT,
    Asked,
    asked_by_dashboards,
    asked_by_rules,
    grouped_by,
    known_labels,
    matchers_in,
    names_in,
    rules,
    shortened,
)
from tests.typed_commands import take_command
from tocsin_schema.message_broker.topology import INTAKE_QUEUES, QUEUES
from tocsin_schema.settings import Settings

COMMAND = re.compile(r"`(tocsin [^`]*)`")
RUNBOOK = "{{ $externalLabels.tocsin_docs }}/runbooks/#"
#: What only the reader knows, and what Prometheus puts in.
LEFT_OPEN = {"JOB": "1", "NAME": "news", "N": "10000", "F": "cert.pem", "{{_}}": "news"}
#: Commands that a text only names, and what they would be given.
NAMED = {"tocsin dead-letter requeue": ["1"], "tocsin job show": ["1"]}
ALL_ASKED = [*asked_by_rules(), *asked_by_dashboards()]
EVERY_DASHBOARD = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=lambda dashboard: dashboard.uid)


def alerts() -> list[dict[str, Any]]:
    return rules(ALERTS)


@pytest.mark.parametrize("asked", ALL_ASKED, ids=lambda asked: asked.where)
def test_an_expression_asks_for_metrics_and_labels_that_there_are(asked: Asked) -> None:
    known = known_labels()
    names = names_in(asked.expr)
    assert names
    assert names <= known.keys()
    for name, label, _ in matchers_in(asked.expr):
        assert label in known[name], f"{name} has no label {label}"
    # `le` is a label of every histogram's buckets, and of nothing else.
    assert grouped_by(asked.expr) <= set().union(*(known[name] for name in names))


def test_the_intake_queues_that_an_alert_looks_at_are_those_that_carry_jobs() -> None:
    [wanted] = {value for asked in asked_by_rules() for _, label, value in matchers_in(asked.expr) if label == "queue"}
    assert [queue for queue in QUEUES if re.fullmatch(wanted, queue)] == list(INTAKE_QUEUES)


@pytest.mark.parametrize("rule", rules(RECORDING), ids=lambda rule: rule["record"])
def test_a_recorded_name_begins_with_the_labels_that_are_left(rule: dict[str, Any]) -> None:
    level, metric, _ = rule["record"].split(":")
    labels = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
    assert {tuple(word.strip() for word in group.split(",") if word.strip() != "le") for group in labels} == {
        tuple(re.findall(r"oauth_profile|[a-z]+", level))
    }
    assert metric.startswith("tocsin_")


def test_every_recorded_series_is_used() -> None:
    used = set().union(*(names_in(asked.expr) for asked in ALL_ASKED))
    assert {rule["record"] for rule in rules(RECORDING)} <= used


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert['alert']}-{alert['labels']}")
def test_an_alert_says_how_urgent_it_is_what_is_wrong_and_where_its_runbook_is(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert "for" in alert
    annotations = alert["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == RUNBOOK + alert["alert"].lower()
    assert "First: " in annotations["description"]


def test_every_alert_is_told_in_the_docs_with_its_urgency() -> None:
    told = (ROOT / "docs/dashboards.md").read_text()
    for alert in alerts():
        assert re.search(rf"^\| `{alert['alert']}` \|.*\b{alert['labels']['severity']}\b", told, re.MULTILINE)


def commands() -> list[str]:
    texts = [text for alert in alerts() for text in alert["annotations"].values()]
    texts += [panel.description for dashboard in DASHBOARDS.values() for panel in dashboard.panels]
    return sorted({command for text in texts for command in COMMAND.findall(text)})


@pytest.mark.parametrize("typed", commands())
def test_the_command_line_takes_what_an_alert_or_a_panel_says(typed: str) -> None:
    words = [LEFT_OPEN.get(word, word) for word in shlex.split(re.sub(r"\{\{.*?\}\}", "{{_}}", typed))[1:]]
    take_command([*words, *NAMED.get(typed, ())])


def test_every_alert_has_cases_in_which_it_fires_and_in_which_it_does_not() -> None:
    cases = [
        (check["alertname"], expected.get("exp_labels", {}).get("severity"))
        for file in (PROMETHEUS / "tests").glob("*.yml")
        for test in yaml.safe_load(file.read_text())["tests"]
        for check in test["alert_rule_test"]
        for expected in check["exp_alerts"] or [{}]
    ]
    for alert in alerts():
        assert (alert["alert"], alert["labels"]["severity"]) in cases
        assert (alert["alert"], None) in cases


def test_time_in_shortened_rules_goes_by_faster() -> None:
    [group] = [one for one in yaml.safe_load(shortened(ALERTS, 60))["groups"] if one["name"] == "tocsin-mail"]
    backlog = next(rule for rule in group["rules"] if rule["alert"] == "TocsinBacklogGrowing")
    assert backlog["for"] == "30000ms"
    assert "> 240\n" in backlog["expr"]
    assert "[20000ms]" in backlog["expr"]


@pytest.mark.parametrize(("file", "dashboard"), DASHBOARDS.items(), ids=lambda value: getattr(value, "name", ""))
def test_a_dashboard_is_as_its_builder_makes_it(file: Any, dashboard: Dashboard) -> None:
    assert file.read_text(encoding="utf-8") == as_text(dashboard), "run: python -m deploy.grafana.write"


@EVERY_DASHBOARD
def test_a_dashboard_holds_nothing_of_one_installation(dashboard: Dashboard) -> None:
    made = dashboard.as_json()
    assert made["id"] is None
    assert [variable["name"] for variable in made["templating"]["list"]] == ["datasource", "job", "profile"]
    text = json.dumps(made)
    assert set(re.findall(r'"uid": "([^"]*)"', text)) == {dashboard.uid, DATASOURCE["uid"]}
    for panel in dashboard.panels:
        for query in panel.queries:
            assert 'job="$job"' in query.expr or "ALERTS" in query.expr, panel.title


@EVERY_DASHBOARD
def test_panels_do_not_overlap_and_tell_what_they_mean(dashboard: Dashboard) -> None:
    taken: set[tuple[int, int]] = set()
    made = dashboard.as_json()["panels"]
    assert len({panel["id"] for panel in made}) == len(made)
    for panel in made:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        fields = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not fields & taken, panel["title"]
        taken |= fields
    assert all(panel.description.endswith(".") for panel in dashboard.panels)


@EVERY_DASHBOARD
def test_a_legend_names_labels_that_its_query_leaves(dashboard: Dashboard) -> None:
    known = known_labels()
    for panel in dashboard.panels:
        for query in panel.queries:
            left = grouped_by(query.expr) or set().union(*(known[name] for name in names_in(query.expr)))
            assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= left, panel.title


def test_prometheus_scrapes_the_workers_of_the_compose_file_where_they_tell() -> None:
    configured = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    [workers] = [job for job in configured["scrape_configs"] if job["job_name"] == "tocsin"]
    [found] = workers["dns_sd_configs"]
    assert found["port"] == Settings.model_fields["metrics_port"].default
    working = {name for name, service in services.items() if "worker" in service.get("command", [])}
    assert set(found["names"]) == working
    assert [PROMETHEUS / name for name in configured["rule_files"]] == [RECORDING, ALERTS]
    assert "tocsin_docs" in configured["global"]["external_labels"]


def test_grafana_finds_its_dashboards_and_prometheus_in_the_compose_file() -> None:
    grafana = ROOT / "deploy/grafana/provisioning"
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    [provider] = yaml.safe_load((grafana / "dashboards/tocsin.yml").read_text())["providers"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in services["grafana"]["volumes"]
    assert "./deploy/grafana/provisioning:/etc/grafana/provisioning:ro" in services["grafana"]["volumes"]
    [source] = yaml.safe_load((grafana / "datasources/prometheus.yml").read_text())["datasources"]
    scraped_every = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["url"], source["jsonData"]["timeInterval"]) == ("http://prometheus:9090", scraped_every)
    assert "prometheus" in services
