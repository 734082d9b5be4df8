"""What scales and watches the Helm chart's pods: KEDA, the Prometheus Operator, Grafana."""

from __future__ import annotations

import json
import re
import tarfile
from typing import TYPE_CHECKING, Any

import jsonschema
import yaml

from tests.chart import CUSTOM_GROUPS, FULL, by_role, helm, of_kind, rendered
from tests.deploy_files import CHART, DEPLOY
from tocsin_schema.message_broker.topology import INTAKE_QUEUES, QUEUES
from tocsin_workers.supervising.endpoints import METRICS_PATH

if TYPE_CHECKING:
    from pathlib import Path


def test_operators_take_every_object_of_theirs():
    found = {told["kind"] for told in rendered()[FULL] if told["apiVersion"].split("/")[0] in CUSTOM_GROUPS}
    assert found == set(CUSTOM_SCHEMAS)
    for objects in rendered().values():
        for told in objects:
            if told["kind"] in CUSTOM_SCHEMAS:
                schema = CUSTOM_SCHEMAS[told["kind"]]
                jsonschema.validate(told["spec"], schema, cls=jsonschema.Draft202012Validator)


# Scaling


def test_pods_scale_on_what_is_due_and_may_be_sent_now_and_one_always_stays():
    scaled = by_role(rendered()[FULL], "ScaledObject")
    assert set(scaled) == {"intake", "sender"}
    for role, told in scaled.items():
        assert told["spec"]["minReplicaCount"] >= 1
        assert (
            told["spec"]["scaleTargetRef"]["name"] == by_role(rendered()[FULL], "Deployment")[role]["metadata"]["name"]
        )
        # Two masters of one number would quarrel.
        assert "replicas" not in by_role(rendered()[FULL], "Deployment")[role]["spec"]
    queries = {role: told["spec"]["triggers"][0]["metadata"]["query"] for role, told in scaled.items()}
    assert queries["sender"] == 'max(tocsin_ledger_batches{state="due",job="notices/notices"})'
    [queue] = re.findall(r'queue=~"([^"]+)"', queries["intake"])
    assert {name for name in QUEUES if re.fullmatch(queue, name)} == set(INTAKE_QUEUES)


def test_no_pod_ends_because_prometheus_does_not_answer():
    """KEDA's fallback: only for AverageValue everywhere, and with this behaviour, since 2.17, never below what is."""
    for told in by_role(rendered()[FULL], "ScaledObject").values():
        assert told["spec"]["fallback"] == {
            "failureThreshold": 3, "replicas": 3, "behavior": "currentReplicasIfHigher",
        }  # fmt: skip
        [trigger] = told["spec"]["triggers"]
        assert trigger["metricType"] == "AverageValue"
        # Asked for a metric that nobody tells any more, KEDA would else be told 0.
        assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_a_query_names_the_job_that_the_monitor_gives():
    """The Prometheus Operator calls a monitor's job by its namespace and name."""
    [monitor] = of_kind(rendered()[FULL], "PodMonitor")
    job = f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}"
    for told in by_role(rendered()[FULL], "ScaledObject").values():
        assert f'job="{job}"' in told["spec"]["triggers"][0]["metadata"]["query"]
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("metrics", METRICS_PATH)


def test_an_alert_and_a_panel_name_the_pod_and_not_its_address():
    [monitor] = of_kind(rendered()[FULL], "PodMonitor")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["relabelings"] == [
        {"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"}
    ]  # fmt: skip


# Rules and dashboards


def test_rules_are_those_of_deploy_with_the_docs_where_the_values_say():
    rules = {told["metadata"]["name"]: told["spec"] for told in of_kind(rendered()[FULL], "PrometheusRule")}
    for name in ("recording", "alerts"):
        written = (DEPLOY / "prometheus" / f"{name}.rules.yml").read_text()
        there = written.replace("{{ $externalLabels.tocsin_docs }}", "https://docs.example.org/tocsin")
        assert rules[f"notices-{name}"] == yaml.safe_load(there)
    links = [
        rule["annotations"]["runbook_url"] for group in rules["notices-alerts"]["groups"] for rule in group["rules"]
    ]
    assert links
    assert [link for link in links if not link.startswith("https://docs.example.org/tocsin/runbooks/#")] == []


def test_dashboards_are_those_of_deploy_and_small_enough():
    [told] = of_kind(rendered()[FULL], "ConfigMap")
    assert told["metadata"]["labels"]["grafana_dashboard"] == "1"
    written = {path.name: json.loads(path.read_text()) for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")}
    assert {name: json.loads(text) for name, text in told["data"].items()} == {
        f"tocsin-{name}": dashboard for name, dashboard in written.items()
    }
    assert sum(len(text.encode()) for text in told["data"].values()) < 2**20


def test_a_packed_chart_holds_what_the_chart_links_to(tmp_path: Path):
    ended = helm().run("package", CHART, "--destination", tmp_path)
    assert ended.returncode == 0, ended.stderr
    [packed] = tmp_path.glob("tocsin-*.tgz")
    with tarfile.open(packed) as archive:
        for path in sorted((CHART / "files").rglob("*")) + sorted((CHART / "files" / "dashboards").glob("*")):
            if path.is_file():
                member = archive.getmember(f"tocsin/{path.relative_to(CHART).as_posix()}")
                held = archive.extractfile(member)
                assert member.isfile()
                assert held is not None
                assert held.read() == path.read_bytes()
        assert not [name for name in archive.getnames() if name.startswith("tocsin/ci/")]


# Objects of operators: what of their definitions the chart uses, and nothing else. After the API references of the
# Prometheus Operator (monitoring.coreos.com/v1) and of KEDA 2.17 (keda.sh/v1alpha1).

DURATION = {"type": "string", "pattern": "^(0|([0-9]+(ms|[smhdwy]))+)$"}
STRING = {"type": "string"}
INTEGER = {"type": "integer"}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}


def strict(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


CUSTOM_SCHEMAS: dict[str, dict[str, Any]] = {
    "PodMonitor": strict(
        "selector", "podMetricsEndpoints",
        selector=strict("matchLabels", matchLabels=STRINGS),
        podMetricsEndpoints={
            "type": "array", "minItems": 1,
            "items": strict(
                "port", port=STRING, path=STRING, interval=DURATION, scrapeTimeout=DURATION,
                relabelings={
                    "type": "array",
                    "items": strict(sourceLabels={"type": "array", "items": STRING}, targetLabel=STRING),
                },
            ),
        },
    ),
    "PrometheusRule": strict(
        "groups",
        groups={
            "type": "array",
            "items": strict(
                "name", "rules",
                name={"type": "string", "minLength": 1}, interval=DURATION,
                rules={
                    "type": "array",
                    "items": {
                        "oneOf": [
                            strict(
                                "alert", "expr",
                                **{
                                    "alert": STRING, "expr": STRING, "for": DURATION,
                                    "keep_firing_for": DURATION, "labels": STRINGS, "annotations": STRINGS,
                                },
                            ),
                            strict("record", "expr", record=STRING, expr=STRING, labels=STRINGS),
                        ]
                    },
                },
            ),
        },
    ),
    "ScaledObject": strict(
        "scaleTargetRef", "triggers",
        scaleTargetRef=strict("name", name=STRING),
        minReplicaCount=INTEGER, maxReplicaCount=INTEGER, pollingInterval=INTEGER,
        fallback=strict(
            "failureThreshold", "replicas",
            failureThreshold=INTEGER, replicas=INTEGER,
            behavior={"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]},
        ),
        advanced=strict(
            horizontalPodAutoscalerConfig=strict(
                behavior=strict(scaleDown=strict(stabilizationWindowSeconds={"type": "integer", "maximum": 3600}))
            )
        ),
        triggers={
            "type": "array", "minItems": 1,
            "items": strict(
                "type", "metadata",
                type={"const": "prometheus"}, metricType={"enum": ["AverageValue", "Value"]},
                # All values are strings there.
                metadata=strict(
                    "serverAddress", "query", "threshold",
                    serverAddress=STRING, query=STRING, threshold=STRING,
                    ignoreNullValues=STRING,
                ),
                authenticationRef=strict("name", name=STRING),
            ),
        },
    ),
}  # fmt: skip
