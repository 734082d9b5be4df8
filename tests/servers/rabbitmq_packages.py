"""Where RabbitMQ's programs come from: installed ones, or Debian's packages unpacked under `.cache/rabbitmq`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.servers.availability import Unavailable
from tests.servers.debian_packages import DebianPackages

_PACKAGES = DebianPackages("rabbitmq", ("rabbitmq-server", "socat"), prefix="erlang-")

CACHE = _PACKAGES.cache

HOW_TO_GET_ONE = "Set TOCSIN_TEST_BROKER_URL to a RabbitMQ that these tests may use, or install rabbitmq-server."


@dataclass(frozen=True)
class Programs:
    """Where RabbitMQ's scripts and Erlang's programs lie."""

    scripts: Path
    erlang: Path

    @property
    def epmd(self) -> Path:
        return self.erlang / "epmd"

    @property
    def erl_call(self) -> Path:
        """Evaluates expressions within a running node (erlang-base)."""
        return self.erlang / "erl_call"


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
    unpacked = _PACKAGES.obtain(_place)
    if isinstance(unpacked, Unavailable):
        return Unavailable(f"{unpacked.reason}. {HOW_TO_GET_ONE}")
    scripts = next((unpacked / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
    return Programs(scripts=scripts, erlang=unpacked / "usr/lib/erlang/bin")


def _place(making: Path, unpacked: Path) -> None:
    # Debian's script has its place on the machine written into it.
    erl = making / "usr/lib/erlang/bin/erl"
    erl.write_text(erl.read_text().replace("ROOTDIR=/usr/lib/erlang", f"ROOTDIR={unpacked}/usr/lib/erlang"))
