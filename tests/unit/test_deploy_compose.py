"""docker-compose.yml: its form, what its containers may do, and the script that makes its secrets."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.deploy_files import (
    COMPOSE_FILE,
    COMPOSE_SETTINGS,
    DEPLOY,
    ROOT,
    SETTINGS,
    compose,
    tocsin_services,
)
from tests.docs_blocks import blocks
from tests.servers.patience import PATIENCE_SECONDS
from tests.typed_commands import take_command
from tocsin_schema.message_broker.topology import Role
from tocsin_schema.sealing import Keyring
from tocsin_schema.settings import Settings
from tocsin_workers.supervising.supervisor import KILL_MARGIN_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
WORKERS = {name: service for name, service in tocsin_services().items() if service["command"][0] == "worker"}
INTERNAL = {name for name, network in compose()["networks"].items() if network.get("internal")}
MAKE_SECRETS = DEPLOY / "compose" / "make-secrets.sh"


def test_it_has_the_form_that_the_compose_specification_describes_and_so_has_what_the_docs_put_beside_it(
    tmp_path: Path,
):
    [told] = [block.text for block in blocks(ROOT / "docs" / "compose.md") if block.language == "yaml"]
    override = tmp_path / "docker-compose.override.yml"
    override.write_text(told)
    ended = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE_FILE, override],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    for service in yaml.safe_load(told)["services"].values():
        assert set(service["networks"]) <= set(compose()["networks"])


# The work


def test_each_role_has_a_service_of_its_name():
    assert {name: service["command"][:3] for name, service in WORKERS.items()} == {
        role.value: ["worker", "--role", role.value] for role in Role if role is not Role.ALL
    }


@pytest.mark.parametrize("name", tocsin_services())
def test_the_command_line_takes_its_commands(name: str):
    take_command(tocsin_services()[name]["command"])


@pytest.mark.parametrize("name", tocsin_services())
def test_every_variable_is_a_setting(name: str):
    assert set(tocsin_services()[name]["environment"]) <= SETTINGS


@pytest.mark.parametrize("name", tocsin_services())
def test_settings_of_an_operator_reach_every_container_of_ours(name: str):
    [file] = tocsin_services()[name]["env_file"]
    assert (ROOT / file["path"], file["required"]) == (COMPOSE_SETTINGS, False)
    example = COMPOSE_SETTINGS.with_name("tocsin.env.example").read_text()
    # Copied as it is, it changes nothing.
    assert [line for line in example.splitlines() if line and not line.startswith("#")] == []
    offered = set(re.findall(r"^#(TOCSIN_\w+)=", example, re.MULTILINE))
    assert offered
    assert offered <= SETTINGS
    # `environment` wins over the file.
    assert offered & set(tocsin_services()[name]["environment"]) == set()


def test_workers_are_given_the_time_that_they_take_to_stop():
    for service in WORKERS.values():
        grace = float(service["environment"]["TOCSIN_SHUTDOWN_GRACE_SECONDS"])
        assert float(service["stop_grace_period"].removesuffix("s")) > grace + KILL_MARGIN_SECONDS


def test_workers_begin_when_the_ledger_is_migrated_and_both_servers_answer():
    for service in WORKERS.values():
        assert {name: on["condition"] for name, on in service["depends_on"].items()} == {
            "migrate": "service_completed_successfully",
            "postgres": "service_healthy",
            "rabbitmq": "service_healthy",
        }
    assert SERVICES["migrate"]["restart"] == "no"


def test_postgres_has_a_connection_for_each_that_workers_may_open():
    # A process: a pool of threads + 8, and one of 2 for its signs of life; the rest is for supervisors and commands.
    of_a_process = int(Settings.model_fields["worker_threads"].default) + 8 + 2
    processes = sum(int(service["command"][-1]) for service in WORKERS.values())
    [allowed] = re.findall(r"max_connections=(\d+)", " ".join(SERVICES["postgres"]["command"]))
    assert processes * of_a_process + 20 <= int(allowed)


def test_every_container_that_stays_is_looked_after():
    for name, service in SERVICES.items():
        runs_on = service["restart"] != "no"
        is_ours = name in WORKERS  # the image has their check
        assert not runs_on or is_ours or service["healthcheck"]["test"][0] == "CMD", name


# What they may do


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_has_rights_that_it_does_not_need(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith(("0", "root"))
    assert not service.get("privileged")
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}


def test_only_who_writes_to_mail_servers_or_token_endpoints_reaches_the_outside():
    outside = {name for name, service in SERVICES.items() if set(service["networks"]) - INTERNAL - {"front"}}
    assert outside == {"sender", "tokens", "tocsin"}
    masquerade = compose()["networks"]["front"]["driver_opts"]["com.docker.network.bridge.enable_ip_masquerade"]
    assert masquerade == "false"


def test_ports_are_published_to_this_machine_only():
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_only_named_volumes_are_written_to():
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source, _, rest = volume.partition(":")
            assert source in compose()["volumes"] or rest.endswith(":ro"), volume
            assert not source.startswith("./") or (ROOT / source).exists(), volume


def test_images_are_pinned_to_a_release():
    for name, service in SERVICES.items():
        tag = service["image"].rsplit(":", 1)[1].rstrip("}")
        assert re.search(r"\d", tag), f"{name}: {service['image']}"


def test_prometheus_reaches_the_workers():
    for name in (*WORKERS, "prometheus"):
        assert "monitoring" in SERVICES[name]["networks"]


# Its secrets


def test_secrets_and_settings_stay_out_of_the_repository_and_of_what_is_packed():
    # hatchling packs deploy/ but for what this file names; it does not read the one that the script makes.
    assert {
        ".env", "deploy/compose/secrets/", COMPOSE_SETTINGS.relative_to(ROOT).as_posix(), "docker-compose.override.yml",
    } <= set((ROOT / ".gitignore").read_text().splitlines())  # fmt: skip


def test_no_secret_stands_in_it():
    text = COMPOSE_FILE.read_text()
    assert re.findall(r"\w+://[^/\s]*:[^/\s]*@", text) == []
    told = re.compile(
        r"^\s*\w*(?:password|secret|token)\w*: (?!/run/secrets/|\[|\{file: )\S+", re.IGNORECASE | re.MULTILINE
    )
    assert told.findall(text) == []


def test_every_secret_that_is_used_is_made_by_the_script(tmp_path: Path):
    secrets = make_secrets(tmp_path)
    files = {(tmp_path / told["file"]).resolve() for told in compose()["secrets"].values()}
    assert {file for file in files if not file.is_file()} == set()
    assert {file.parent for file in files} == {secrets.resolve()}


def test_a_secrets_file_is_for_its_group_only(tmp_path: Path):
    secrets = make_secrets(tmp_path)
    for told in compose()["secrets"].values():
        assert stat.S_IMODE((tmp_path / told["file"]).stat().st_mode) == 0o440
    gid = (secrets / "master_key").stat().st_gid
    assert (tmp_path / ".env").read_text() == f"SECRETS_GID={gid}\n"
    assert gid != 0
    assert (secrets / ".gitignore").read_text() == "*\n"


def test_the_urls_lead_to_the_services_and_the_passwords_agree(tmp_path: Path):
    secrets = make_secrets(tmp_path)

    def told(name: str) -> str:
        return (secrets / name).read_text().strip()

    ledger, broker = urlsplit(told("database_url")), urlsplit(told("broker_url"))
    assert (ledger.hostname, ledger.username, ledger.path) == ("postgres", "tocsin", "/tocsin")
    assert ledger.password == told("postgres_password")
    assert (broker.hostname, broker.path) == ("rabbitmq", "/tocsin")
    assert f"default_pass = {broker.password}" in told("rabbitmq_conf")
    assert ledger.password != broker.password != told("grafana_password")
    Settings.model_validate({"database_url": told("database_url"), "broker_url": told("broker_url")})


def test_the_master_key_is_one_that_opens(tmp_path: Path):
    keyring = Keyring.parse((make_secrets(tmp_path) / "master_key").read_text())
    assert len(keyring.keys) == 1
    assert keyring.primary.id.startswith("key-")


def test_made_again_nothing_changes(tmp_path: Path):
    secrets = make_secrets(tmp_path)
    before = {file.name: file.read_bytes() for file in secrets.iterdir()}
    (secrets / "grafana_password").unlink()
    make_secrets(tmp_path)
    after = {file.name: file.read_bytes() for file in secrets.iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"grafana_password"}
    assert (tmp_path / ".env").read_text().count("SECRETS_GID=") == 1


@pytest.mark.parametrize(
    ("password", "others"),
    [("postgres_password", ["database_url"]), ("broker_password", ["broker_url", "rabbitmq_conf"])],
)
def test_no_new_password_is_made_beside_a_file_that_holds_the_old_one(tmp_path: Path, password: str, others: list[str]):
    secrets = make_secrets(tmp_path)
    before = {name: (secrets / name).read_bytes() for name in (password, *others)}
    for other in others:
        for name in (password, *others):
            (secrets / name).unlink(missing_ok=True)
        (secrets / other).write_bytes(before[other])
        refused = run_make_secrets(tmp_path)
        assert refused.returncode == 1
        assert f"secrets/{password} is missing" in refused.stderr
        assert f"secrets/{other} holds its password" in refused.stderr
        assert {name for name in (password, *others) if (secrets / name).exists()} == {other}
    # The password alone is enough: what holds it is made of it again.
    (secrets / password).write_bytes(before[password])
    make_secrets(tmp_path)
    assert {name: (secrets / name).read_bytes() for name in before} == before


def test_what_stands_in_env_already_stays(tmp_path: Path):
    (tmp_path / ".env").write_text("IMAGE=registry.example.org/tocsin:0.1.0")
    gid = (make_secrets(tmp_path) / "master_key").stat().st_gid
    assert (tmp_path / ".env").read_text() == f"IMAGE=registry.example.org/tocsin:0.1.0\nSECRETS_GID={gid}\n"


def make_secrets(root: Path) -> Path:
    """Run the script in a tree of its own; give the directory that it fills."""
    ended = run_make_secrets(root)
    assert ended.returncode == 0, ended.stderr
    return root / MAKE_SECRETS.relative_to(ROOT).with_name("secrets")


def run_make_secrets(root: Path) -> subprocess.CompletedProcess[str]:
    place = root / MAKE_SECRETS.relative_to(ROOT)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(MAKE_SECRETS, place)
    return subprocess.run(["sh", place], cwd="/", capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
