"""Where RabbitMQ's programs come from: installed ones, or Debian's packages unpacked under `.cache/rabbitmq`."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "rabbitmq"

HOW_TO_GET_ONE = "Set TOCSIN_TEST_BROKER_URL to a RabbitMQ that these tests may use, or install rabbitmq-server."

DOWNLOAD_SECONDS = 300.0


@dataclass(frozen=True)
class Unavailable:
    """There is no RabbitMQ, and why; one line that says what to do."""

    reason: str


@dataclass(frozen=True)
class Programs:
    """Where RabbitMQ's scripts and Erlang's programs lie."""

    scripts: Path
    erlang: Path

    @property
    def epmd(self) -> Path:
        return self.erlang / "epmd"


def installed() -> Programs | None:
    """Find an installed RabbitMQ: its real scripts, not the wrappers that insist on the user `rabbitmq`."""
    erl = shutil.which("erl")
    found = [path for path in Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin") if path.is_dir()]
    server = shutil.which("rabbitmq-server")
    if server and (Path(server).resolve().parent / "rabbitmq-env").exists():
        found.append(Path(server).resolve().parent)
    if erl is None or not found:
        return None
    epmd = shutil.which("epmd") or str(Path(erl).resolve().with_name("epmd"))
    return Programs(scripts=found[-1], erlang=Path(epmd).parent)


def from_debian() -> Programs | Unavailable:
    """Download and unpack Debian's packages once; several test runs at a time wait for each other."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unpacked = CACHE / "unpacked"
        if not unpacked.exists():
            if not all(shutil.which(program) for program in ("apt-get", "apt-cache", "dpkg")):
                return Unavailable(f"no RabbitMQ, and no Debian to fetch one from. {HOW_TO_GET_ONE}")
            try:
                _unpack(_download(), unpacked)
            except (subprocess.SubprocessError, OSError, RuntimeError) as error:
                return Unavailable(f"Debian's RabbitMQ cannot be fetched ({error}). {HOW_TO_GET_ONE}")
        scripts = next((unpacked / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
        return Programs(scripts=scripts, erlang=unpacked / "usr/lib/erlang/bin")


def _download() -> list[Path]:
    """Download rabbitmq-server and what it needs of Erlang.

    First with the machine's lists, then with fresh ones.
    """
    packages = CACHE / "packages"
    packages.mkdir(exist_ok=True)
    try:
        return _apt_download(packages, [])
    except (subprocess.SubprocessError, RuntimeError):
        options = _private_apt()
        _apt(["apt-get", *options, "update"], packages)
        return _apt_download(packages, options)


def _apt_download(packages: Path, options: list[str]) -> list[Path]:
    left_out = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    told = _apt(["apt-cache", *options, "depends", "--recurse", *left_out, "rabbitmq-server"], packages)
    needed = {line for line in told.splitlines() if line.startswith("erlang-")} | {"rabbitmq-server", "socat"}
    if len(needed) < 3:
        raise RuntimeError("apt does not know rabbitmq-server")
    # apt wants to download as the user _apt, who may not write here; as root it then warns and does it all
    # the same.
    _apt(["apt-get", *options, "-o", "APT::Sandbox::User=", "download", *sorted(needed)], packages)
    return sorted(packages.glob("*.deb"))


def _private_apt() -> list[str]:
    """Make package lists of our own: the machine's are empty, and only root could fill them."""
    state, cache = CACHE / "apt" / "state", CACHE / "apt" / "cache"
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    return [
        *("-o", f"Dir::State::lists={state / 'lists'}"),
        *("-o", f"Dir::Cache={cache}"),
        *("-o", "APT::Sandbox::User="),
        *("-o", "APT::Update::Post-Invoke-Success="),
    ]


def _apt(command: list[str], directory: Path) -> str:
    answer = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "LANG": "C"},
        capture_output=True,
        text=True,
        timeout=DOWNLOAD_SECONDS,
        check=False,
    )
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(f"{command[0]}: {last}")
    return answer.stdout


def _unpack(packages: Iterable[Path], unpacked: Path) -> None:
    making = unpacked.with_name(f"unpacking-{os.getpid()}")
    shutil.rmtree(making, ignore_errors=True)
    for package in packages:
        subprocess.run(["dpkg", "-x", package, making], check=True, capture_output=True, timeout=60)
    # Debian's script has its place on the machine written into it.
    erl = making / "usr/lib/erlang/bin/erl"
    erl.write_text(erl.read_text().replace("ROOTDIR=/usr/lib/erlang", f"ROOTDIR={unpacked}/usr/lib/erlang"))
    making.rename(unpacked)
