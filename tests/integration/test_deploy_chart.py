"""The Helm chart, rendered by helm itself: its form, its values, and that it does what the code expects."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.chart import CUSTOM_GROUPS, FULL, MINIMAL, ROLES, VALUES, by_role, containers, helm, of_kind, pods, rendered
from tests.deploy_files import CHART, ROOT, SETTINGS
from tests.docs_blocks import blocks
from tests.typed_commands import take_command
from tocsin_schema.settings import Settings
from tocsin_workers.supervising.endpoints import LIVENESS_PATH, READINESS_PATH, START_PATH
from tocsin_workers.supervising.supervisor import KILL_MARGIN_SECONDS

#: The oldest that Chart.yaml admits, and the newest that the package knows.
KUBERNETES = ("1.27", "1.37")
PORT = int(Settings.model_fields["metrics_port"].default)
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


# Its form


def test_helms_linter_has_nothing_to_say():
    for values in VALUES:
        ended = helm().run("lint", "--strict", CHART, "--values", values)
        assert ended.returncode == 0, ended.stdout
        assert "[WARNING]" not in ended.stdout


def test_kubernetes_takes_every_object_of_its_own():
    for values, objects in rendered().items():
        for told in objects:
            if told["apiVersion"].split("/")[0] not in CUSTOM_GROUPS:
                for version in KUBERNETES if values == FULL else KUBERNETES[-1:]:
                    kubernetes_validate.validate(told, version, strict=True)


def test_kubernetes_schema_is_one_that_refuses():
    wrong = json.loads(json.dumps(of_kind(rendered()[MINIMAL], "Deployment")[0]))
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[-1], strict=True)


def test_no_name_is_there_twice_and_all_lie_in_the_releases_namespace():
    for objects in rendered().values():
        names = [(told["kind"], told["metadata"]["name"]) for told in objects]
        assert len(names) == len(set(names))
        assert {told["metadata"]["namespace"] for told in objects} == {"notices"}


def test_names_fit_however_long_the_release_is_called():
    objects = helm().template(CHART, values=[MINIMAL], release="a-release-of-the-longest-name-that-helm-permits-53ch")
    assert [told["metadata"]["name"] for told in objects if len(told["metadata"]["name"]) > 63] == []


# Its values


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("roles.sender.replica=3", "replica"),
        ("roles.sender.replicas=0", "replicas"),
        ("roles.sender.autoscaling.minReplicas=0", "minReplicas"),
        ("roles.senders.replicas=1", "senders"),
        ('settings.logLevel="LOUD"', "logLevel"),
        ("settings.workerThreads=2", "workerThreads"),
        ('image.digest="latest"', "digest"),
        ('workloadIdentity.mode="azure"', "mode"),
        ("podDisruptionBudget.maxUnavailable=0", "maxUnavailable"),
        ('networkPolicy.database.ports=["5432"]', "ports"),
        ("networkPolicy.dnsPorts=[]", "dnsPorts"),
        ("roles.sender.autoscaling.threshold=0.5", "threshold"),
        ('fullnameOverride="Campus_Mail"', "fullnameOverride"),
        ('masterKey="key-1 secret"', "masterKey"),
    ],
)
def test_a_typing_error_in_the_values_is_refused(setting: str, named: str):
    ended = helm().run("template", "mail", CHART, "--values", MINIMAL, "--set-json", setting)
    assert ended.returncode != 0
    assert "values don't meet the specifications of the schema" in ended.stderr
    assert named in ended.stderr


@pytest.mark.parametrize("secret", ["databaseUrl", "brokerUrl", "masterKey"])
def test_a_secret_that_is_not_named_is_asked_for(secret: str):
    ended = helm().run("template", "mail", CHART, "--values", MINIMAL, "--set", f"secrets.{secret}.existingSecret=")
    assert ended.returncode != 0
    assert f"secrets.{secret}.existingSecret is missing" in ended.stderr


def test_scaling_without_prometheus_is_refused():
    ended = helm().run("template", "mail", CHART, "--values", MINIMAL, "--set", "roles.sender.autoscaling.enabled=true")
    assert ended.returncode != 0
    assert "autoscaling.serverAddress is missing" in ended.stderr


def test_fewer_pods_at_most_than_at_least_are_refused():
    scaling = ("--set", "roles.sender.autoscaling.enabled=true", "--set", "autoscaling.serverAddress=http://prometheus")
    ended = helm().run(
        "template", "mail", CHART, "--values", MINIMAL, *scaling, "--set", "roles.sender.autoscaling.minReplicas=9"
    )
    assert ended.returncode != 0
    assert "minReplicas (9) is more than maxReplicas (8)" in ended.stderr


def test_every_value_has_its_place_in_the_schema():
    """Each value of values.yaml is named there, and each that is named there has a line in values.yaml."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    optional = {"global", "topologySpread"}  # Helm's own; a list of objects that Kubernetes has more fields for

    def compare(part: dict[str, Any], told: dict[str, Any], where: str) -> None:
        told = schema["definitions"][told["$ref"].rpartition("/")[2]] if "$ref" in told else told
        if "properties" not in told:
            return  # Kubernetes' own
        assert set(part) == set(told["properties"]) - optional | set(part) & optional, where
        assert told["additionalProperties"] is False, where
        for name, value in part.items():
            if isinstance(value, dict):
                compare(value, told["properties"][name], f"{where}.{name}")

    compare(values, schema, "values")


def test_every_value_is_explained():
    """By a comment before it, or at the head of what it holds. Of the roles, the first one's values speak for all."""
    lines = [*(CHART / "values.yaml").read_text().splitlines(), ""]
    undone: list[str] = []
    inside: list[str] = []
    for number, line in enumerate(lines):
        found = re.match(r"( *)(\w+):", line)
        if found is None:
            continue
        inside = [*inside[: len(found[1]) // 2], found[2]]
        near = (lines[number - 1], lines[number + 1])
        if _wants_explaining(inside) and not any(other.lstrip().startswith("#") for other in near):
            undone.append(".".join(inside))
    assert undone == []


def _wants_explaining(path: list[str]) -> bool:
    match path:
        case ["podSecurityContext" | "containerSecurityContext" | "secrets", _, *_] | [*_, "requests" | "limits"]:
            return False  # Kubernetes' own; and each secret is explained as one
        case ["roles", role, _, *_]:
            return role == "intake"
        case _:
            return True


# The work


def test_each_role_is_a_deployment_with_a_budget_and_a_policy():
    for objects in (rendered()[MINIMAL], rendered()[FULL]):
        for kind in ("Deployment", "PodDisruptionBudget", "NetworkPolicy"):
            assert set(by_role(objects, kind)) == ROLES
        for role, told in by_role(objects, "Deployment").items():
            [worker] = told["spec"]["template"]["spec"]["containers"]
            assert worker["args"][:3] == ["worker", "--role", role]


def test_selectors_find_the_pods_of_their_role_and_no_others():
    objects = rendered()[FULL]
    labels = {
        role: told["spec"]["template"]["metadata"]["labels"] for role, told in by_role(objects, "Deployment").items()
    }
    labels["migrate"] = of_kind(objects, "Job")[0]["spec"]["template"]["metadata"]["labels"]

    def chosen(selector: dict[str, Any]) -> set[str]:
        wanted = selector["matchLabels"].items()
        return {role for role, has in labels.items() if wanted <= has.items()}

    for role in ROLES:
        deployment = by_role(objects, "Deployment")[role]["spec"]
        assert chosen(deployment["selector"]) == {role}
        assert chosen(by_role(objects, "PodDisruptionBudget")[role]["spec"]["selector"]) == {role}
        assert chosen(by_role(objects, "NetworkPolicy")[role]["spec"]["podSelector"]) == {role}
        for spread in deployment["template"]["spec"]["topologySpreadConstraints"]:
            assert chosen(spread["labelSelector"]) == {role}
    [monitor] = of_kind(objects, "PodMonitor")
    assert chosen(monitor["spec"]["selector"]) >= ROLES


def test_the_command_line_takes_what_containers_run():
    for container in containers():
        assert "command" not in container  # the image's entry point
        take_command(container["args"])


def test_every_variable_is_a_setting():
    for container in containers():
        names = [variable["name"] for variable in container["env"]]
        assert len(names) == len(set(names))
        assert {name for name in names if name.startswith("TOCSIN_")} <= SETTINGS


def test_no_variable_comes_from_a_service_that_is_called_like_ours():
    assert all(pod["enableServiceLinks"] is False for pod in pods())


def test_a_pod_is_given_the_time_that_it_takes_to_stop():
    for objects in rendered().values():
        for told in of_kind(objects, "Deployment"):
            pod = told["spec"]["template"]["spec"]
            grace = next(one["value"] for one in pod["containers"][0]["env"] if one["name"].endswith("GRACE_SECONDS"))
            assert pod["terminationGracePeriodSeconds"] > float(grace) + KILL_MARGIN_SECONDS


def test_the_page_on_health_shows_the_probes_of_the_chart():
    [shown] = [block.text for block in blocks(ROOT / "docs" / "health.md") if block.language == "yaml"]
    for role in by_role(rendered()[MINIMAL], "Deployment").values():
        [worker] = role["spec"]["template"]["spec"]["containers"]
        probes = {name: {**worker[name], "httpGet": {**worker[name]["httpGet"], "port": PORT}} for name in PROBES}
        assert yaml.safe_load(shown) == probes


def test_probes_ask_where_workers_answer():
    for objects in rendered().values():
        for told in of_kind(objects, "Deployment"):
            [worker] = told["spec"]["template"]["spec"]["containers"]
            [port] = worker["ports"]
            assert (port["name"], port["containerPort"]) == ("metrics", PORT)
            variables = {one["name"]: one.get("value") for one in worker["env"]}
            assert variables["TOCSIN_METRICS_PORT"] == str(PORT)
            asked = {probe: worker[probe]["httpGet"] for probe in PROBES}
            assert {probe: (get["path"], get["port"]) for probe, get in asked.items()} == {
                "livenessProbe": (LIVENESS_PATH, "metrics"),
                "readinessProbe": (READINESS_PATH, "metrics"),
                "startupProbe": (START_PATH, "metrics"),
            }


def test_the_ledger_is_migrated_in_two_steps_round_the_new_pods():
    hooks = {
        told["metadata"]["annotations"]["helm.sh/hook"]: told["spec"]["template"]["spec"]["containers"][0]["args"][:2]
        for told in of_kind(rendered()[MINIMAL], "Job")
    }
    assert hooks == {
        "pre-install,pre-upgrade": ["migrate", "--before"],
        "post-install,post-upgrade": ["migrate", "--after"],
    }


def test_what_a_first_step_needs_is_there_before_anything_is_installed():
    objects = rendered()[MINIMAL]
    ours = {(told["kind"], told["metadata"]["name"]) for told in objects}
    for job in of_kind(objects, "Job"):
        pod = job["spec"]["template"]["spec"]
        assert ("ServiceAccount", pod["serviceAccountName"]) not in ours
    [policy] = [
        told for told in of_kind(objects, "NetworkPolicy")
        if told["metadata"]["labels"]["app.kubernetes.io/component"] == "migrate"
    ]  # fmt: skip
    assert policy["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade,post-install,post-upgrade"
    assert int(policy["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0
