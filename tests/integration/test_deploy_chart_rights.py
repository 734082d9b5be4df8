"""What the Helm chart lets pods do: as little as their work needs."""

from __future__ import annotations

from tests.chart import AZURE, BARE, FULL, MINIMAL, ROLES, by_role, containers, of_kind, pods, rendered
from tests.deploy_files import ROOT

#: A policy sees the port of the DNS server's pods: 53, and 5353 on OpenShift.
DNS_PORTS = {53, 5353}


def test_pods_keep_to_the_restricted_pod_security_standard():
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and a read-only root besides."""
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"].get("runAsUser", 10001) != 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {
            "emptyDir", "projected", "configMap", "secret",
        }  # fmt: skip
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_no_pod_gets_a_token_for_kubernetes():
    assert all(pod["automountServiceAccountToken"] is False for pod in pods())
    for objects in rendered().values():
        assert all(account["automountServiceAccountToken"] is False for account in of_kind(objects, "ServiceAccount"))
        assert of_kind(objects, "Role") == of_kind(objects, "ClusterRole") == []


def test_the_chart_makes_no_secret_and_puts_none_into_a_variable():
    for objects in rendered().values():
        assert of_kind(objects, "Secret") == []
    for container in containers():
        assert [one for one in container["env"] if "secretKeyRef" in one.get("valueFrom", {})] == []


def test_secrets_are_files_where_tocsin_looks_for_them_closed_to_others():
    for pod in pods():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        [container] = pod["containers"]
        mounted = next(mount for mount in container["volumeMounts"] if mount["name"] == "secrets")
        assert volumes["secrets"]["projected"]["defaultMode"] == 0o440
        items = [item for source in volumes["secrets"]["projected"]["sources"] for item in source["secret"]["items"]]
        told = [
            one["value"] for one in container["env"] if one["name"].startswith("TOCSIN_") and "_FILE" in one["name"]
        ]
        assert {f"{mounted['mountPath']}/{item['path']}" for item in items} == set(told)


def test_a_migration_sees_the_database_only():
    for job in of_kind(rendered()[FULL], "Job"):
        pod = job["spec"]["template"]["spec"]
        sources = next(volume["projected"]["sources"] for volume in pod["volumes"] if volume["name"] == "secrets")
        assert [source["secret"]["name"] for source in sources] == ["tocsin-database"]


def test_only_senders_reach_mail_servers_and_only_who_needs_tokens_their_endpoints():
    reached = {
        role: {port["port"] for rule in told["spec"]["egress"] for port in rule["ports"]}
        for role, told in by_role(rendered()[MINIMAL], "NetworkPolicy").items()
    }
    servers = {*DNS_PORTS, 5432, 5671, 5672}
    assert reached == {
        "intake": servers,
        "sweeper": servers,
        "tokens": servers | {443},
        "sender": servers | {443, 25, 465, 587, 2465, 2587},
    }


def test_every_pod_can_ask_for_names_migrations_among_them():
    for values, ports in ((MINIMAL, DNS_PORTS), (FULL, {53})):
        wanted = {(protocol, port) for protocol in ("UDP", "TCP") for port in ports}
        policies = of_kind(rendered()[values], "NetworkPolicy")
        assert len(policies) == len(ROLES) + 1
        for told in policies:
            ports_of_rules = [{(to["protocol"], to["port"]) for to in rule["ports"]} for rule in told["spec"]["egress"]]
            assert wanted in ports_of_rules


def test_peers_that_are_named_are_the_only_ones():
    for role, told in by_role(rendered()[FULL], "NetworkPolicy").items():
        [scraping] = told["spec"]["ingress"]
        assert scraping["from"], role
        to_database = next(
            rule for rule in told["spec"]["egress"] if {"protocol": "TCP", "port": 6432} in rule["ports"]
        )
        assert to_database["to"] == [{"ipBlock": {"cidr": "10.1.2.3/32"}}]


# Workload identity


def test_azures_webhook_is_asked_for_by_those_that_ask_for_tokens():
    asked = {
        role
        for role, told in by_role(rendered()[AZURE], "Deployment").items()
        if told["spec"]["template"]["metadata"]["labels"].get("azure.workload.identity/use") == "true"
    }
    assert asked == {"sender", "tokens"}


def test_a_projected_token_lies_where_the_grant_looks_for_it():
    signing_in = (ROOT / "docs" / "signing-in.md").read_text()
    found: set[str] = set()
    for role, told in by_role(rendered()[BARE], "Deployment").items():
        pod = told["spec"]["template"]["spec"]
        for volume in pod["volumes"]:
            if volume["name"] == "identity":
                [mount] = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "identity"]
                [source] = volume["projected"]["sources"]
                assert f"`{mount['mountPath']}/{source['serviceAccountToken']['path']}`" in signing_in
                found.add(role)
    assert found == {"sender", "tokens"}
