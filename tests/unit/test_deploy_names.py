"""Every name under deploy/ that the code gives: variables, commands, roles, queues, metrics, releases."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from tests.deploy_files import (
    CHART,
    DEPLOY,
    PROJECT,
    SETTINGS,
    chart_values,
    compose,
    texts,
)
from tests.typed_commands import take_command
from tocsin_schema.message_broker.topology import QUEUES, Role
from tocsin_workers.metrics import METRICS

OWN_METRIC = re.compile(r"\btocsin_[a-z][a-z_]*\b")
#: What begins like a metric and is none.
OTHER_NAMES = {"tocsin_docs"}  # an external label of Prometheus
NOTES = (CHART / "templates" / "NOTES.txt").read_text()
README = (CHART / "README.md").read_text()
#: What a reader puts in.
LEFT_OPEN = {"NAME": "campus", "JOB": "99999999-8888-4777-8666-555555555555"}


def test_every_variable_that_is_named_is_a_setting():
    unknown = {
        (path, name)
        for path, text in texts()
        for name in re.findall(r"\bTOCSIN_[A-Z_]+\b", text)
        if name not in SETTINGS and name != "TOCSIN_"
    }
    assert unknown == set()


def test_a_setting_that_does_not_exist_would_be_noticed():
    assert "TOCSIN_METRIC_PORT" not in SETTINGS
    assert "TOCSIN_METRICS_PORT" in SETTINGS


def test_every_role_is_one_and_none_is_left_out():
    roles = {role.value for role in Role if role is not Role.ALL}
    assert set(chart_values()["roles"]) == roles
    assert roles <= set(compose()["services"])


def test_every_queue_that_is_asked_for_exists():
    asked = [
        (path, pattern.replace("\\\\", "\\"))
        for path, text in texts()
        if path.endswith((".yml", ".yaml"))
        for pattern in re.findall(r'queue=~?"([^"]+)"', text)
    ]
    assert asked
    assert [
        (path, pattern) for path, pattern in asked if not any(re.fullmatch(pattern, queue) for queue in QUEUES)
    ] == []


@pytest.mark.parametrize("part", ["deploy/helm", "docker-compose.yml", "deploy/Dockerfile", "deploy/compose"])
def test_every_metric_that_is_named_is_one_that_workers_expose(part: str):
    """Rules and dashboards have a test of their own."""
    named = {name for path, text in texts() if path.startswith(part) for name in OWN_METRIC.findall(text)}
    assert named - {metric.name for metric in METRICS} - OTHER_NAMES == set()


def test_the_command_line_takes_every_command_that_is_advised():
    advised = [
        *re.findall(r"-- (tocsin [^\n]+)", NOTES),
        *re.findall(r"`(tocsin [^`\n]+)`", NOTES + README),
        *re.findall(r"^tocsin [^\n]+$", README, re.MULTILINE),
        *re.findall(r"docker compose run --rm (tocsin [^\n]+)", (DEPLOY.parent / "docker-compose.yml").read_text()),
    ]
    assert advised
    for command in advised:
        take_command([LEFT_OPEN.get(word, word) for word in shlex.split(command, comments=True)[1:]])


def test_image_chart_and_compose_are_of_the_same_release():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == PROJECT["version"]
    ours = {service["image"] for service in compose()["services"].values() if "build" in service}
    assert ours == {f"${{IMAGE:-tocsin:{PROJECT['version']}}}"}


def test_what_the_chart_takes_from_deploy_is_linked_and_not_copied():
    """A copy would be another file, and drift; `helm package` puts the files themselves into the archive."""
    for name, original in {
        "alerts.rules.yml": DEPLOY / "prometheus" / "alerts.rules.yml",
        "recording.rules.yml": DEPLOY / "prometheus" / "recording.rules.yml",
        "dashboards": DEPLOY / "grafana" / "dashboards",
    }.items():
        link = CHART / "files" / name
        assert link.is_symlink()
        assert link.resolve(strict=True) == original.resolve(strict=True)
