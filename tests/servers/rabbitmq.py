"""A RabbitMQ for tests: the one at TOCSIN_TEST_BROKER_URL, or a private node of our own.

A private node comes from an installed `rabbitmq-server`, or else from Debian's packages, downloaded and
unpacked under `.cache/rabbitmq`, which needs no root and changes nothing on the machine. It has its own name,
ports, home and epmd, and dies with the process that started it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

import pika
import pika.exceptions
import psutil

from tests.servers.availability import Unavailable
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.ports import free_ports
from tests.servers.processes import die_with_parent
from tests.servers.rabbitmq_packages import CACHE, HOW_TO_GET_ONE, Programs, from_debian, installed
from tocsin_schema.message_broker import amqp, topology

if TYPE_CHECKING:
    from pathlib import Path

BROKER_URL_VARIABLE = "TOCSIN_TEST_BROKER_URL"


#: Whether every quorum queue has a leader; after a restart that takes a few seconds.
_ALL_LED = """
lists:all(
    fun(Queue) -> ra_leaderboard:lookup_leader(element(1, amqqueue:get_pid(Queue))) =/= undefined end,
    [Queue || Queue <- rabbit_amqqueue:list(), amqqueue:get_type(Queue) =:= rabbit_quorum_queue]).
"""


@dataclass
class RabbitmqNode:
    """A RabbitMQ that tests may use.

    `has_control` says whether it may be killed, and has virtual hosts to spare.
    """

    url: str
    home: Path | None = None
    programs: Programs | None = None
    environment: dict[str, str] = field(default_factory=dict[str, str])
    epmd: subprocess.Popen[bytes] | None = None
    server: subprocess.Popen[bytes] | None = None
    vhosts: list[str] = field(default_factory=list[str])

    @staticmethod
    def obtain() -> RabbitmqNode | Unavailable:
        """Give the node at TOCSIN_TEST_BROKER_URL, or start a private one. Call it from the main thread."""
        url = os.environ.get(BROKER_URL_VARIABLE)
        if url:
            return _external(url)
        return RabbitmqNode.obtain_own()

    @staticmethod
    def obtain_own() -> RabbitmqNode | Unavailable:
        """Start a private node, which may be frozen, killed and wiped. Call it from the main thread."""
        programs = installed() or from_debian()
        if isinstance(programs, Unavailable):
            return programs
        return _private(programs)

    @property
    def has_control(self) -> bool:
        return self.home is not None

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 5672

    def start(self) -> None:
        """Start the private node (again), with the data that it had.

        RuntimeError where it does not come up.
        """
        assert self.home is not None
        assert self.programs is not None
        if self.epmd is None or self.epmd.poll() is not None:
            self.epmd = _spawn(
                [self.programs.epmd, "-address", "127.0.0.1", "-port", self.environment["ERL_EPMD_PORT"]],
                self.environment,
                self.home / "epmd.log",
            )
        self.server = _spawn([self.programs.scripts / "rabbitmq-server"], self.environment, self.home / "server.log")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _answers(self.url):
            if self.server.poll() is not None or time.monotonic() > deadline:
                told = (self.home / "server.log").read_text(errors="replace").strip()[-1500:]
                self.stop()
                raise RuntimeError(f"the private RabbitMQ does not start: {told}")
            time.sleep(0.1)
        # A client that is faster than the election of a queue's leader waits for a minute.
        while self.evaluate(_ALL_LED) != "true":
            if time.monotonic() > deadline:
                raise RuntimeError("a quorum queue found no leader after the restart")
            time.sleep(0.1)

    def settle(self) -> None:
        """Have the node write down which virtual hosts and queues there are.

        RabbitMQ 3.10 does so only after a while: a quorum queue that was made in the last second or so before
        a crash comes back without its log, confirmed messages included.
        """
        self.evaluate("ok = mnesia:sync_log(), [ok = dets:sync(Table) || Table <- dets:all()].")

    def freeze(self) -> None:
        """Stop the private node in its tracks; it answers nothing until it is killed."""
        assert self.server is not None
        self.server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen node go on."""
        assert self.server is not None
        self.server.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Kill the private node and forget all that it had; `start` brings it back as new."""
        assert self.home is not None
        self.kill()
        shutil.rmtree(self.home / "data")
        self.vhosts.clear()

    def kill(self) -> None:
        """Kill the private node as a crash would; `start` brings it back with what it had on disk."""
        assert self.server is not None
        _kill(self.server)
        self.server = None

    def stop(self) -> None:
        """End every process of the private node, epmd included, and remove its data. Harmless to repeat."""
        for process in (self.server, self.epmd):
            if process is not None:
                _kill(process)
        self.server = self.epmd = None
        if self.home is not None:
            shutil.rmtree(self.home, ignore_errors=True)

    def evaluate(self, expressions: str) -> str:
        """Evaluate Erlang expressions within the private node, as `rabbitmqctl eval` does; gives the last one's value.

        Erlang's own client starts in a hundredth of the time of rabbitmqctl, and of the processor's work.
        """
        assert self.home is not None
        assert self.programs is not None
        cookie = (self.home / ".erlang.cookie").read_text(encoding="ascii")
        answer = subprocess.run(
            [self.programs.erl_call, "-e", "-n", self.environment["RABBITMQ_NODENAME"], "-c", cookie],
            env=self.environment,
            input=f"{expressions}\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        told = answer.stdout.strip()
        if answer.returncode or not told.startswith("{ok, "):
            raise RuntimeError(f"RabbitMQ does not evaluate {expressions}: {told}{answer.stderr}")
        return told.removeprefix("{ok, ").removesuffix("}")

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl on the private node; gives what it printed."""
        assert self.programs is not None
        answer = subprocess.run(
            [self.programs.scripts / "rabbitmqctl", "--quiet", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        if answer.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {answer.stdout}{answer.stderr}")
        return answer.stdout

    def close_all_connections(self, url: str | None = None) -> None:
        """Have the server close every connection, or those of one virtual host."""
        vhost = ["--vhost", urlsplit(url).path.removeprefix("/")] if url else []
        self.ctl("close_all_connections", *vhost, "closed by a test")

    def create_vhost(self) -> str:
        """Give the URL of a fresh virtual host. On somebody else's node: the same one, without our queues."""
        if not self.has_control:
            _delete_topology(self.url)
            return self.url
        name = f"test-{secrets.token_hex(4)}"
        self.evaluate(
            f'rabbit_vhost:add(<<"{name}">>, <<"tests">>),'
            f' rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>,'
            ' <<".*">>, <<".*">>, <<".*">>, <<"tests">>).',
        )
        self.vhosts.append(name)
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path="/" + quote(name, safe="")))

    def delete_vhost(self, url: str) -> None:
        """Remove a virtual host that `create_vhost` gave, with everything in it."""
        if not self.has_control:
            _delete_topology(url)
            return
        name = urlsplit(url).path.removeprefix("/")
        self.vhosts.remove(name)
        self.evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"tests">>).')


def _external(url: str) -> RabbitmqNode | Unavailable:
    if not _answers(url):
        return Unavailable(f"no RabbitMQ answers at {BROKER_URL_VARIABLE}")
    return RabbitmqNode(url)


def _private(programs: Programs) -> RabbitmqNode | Unavailable:
    nodes = CACHE / "nodes"
    _sweep(nodes)
    home = nodes / f"{os.getpid()}-{secrets.token_hex(3)}"
    home.mkdir(parents=True)
    port, distribution, epmd = free_ports(3)
    (home / "rabbitmq.conf").write_text("loopback_users = none\nlog.console.level = warning\n")
    node = RabbitmqNode(
        f"amqp://guest:guest@127.0.0.1:{port}/%2F",
        home=home,
        programs=programs,
        environment={
            "PATH": f"{programs.erlang}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "ERL_EPMD_PORT": str(epmd),
            "RABBITMQ_NODENAME": f"tocsin-{home.name}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_HOME": str(programs.scripts.parent),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "none.conf"),
            # With these the start script becomes the server instead of waiting for it as a child.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
        },
    )
    try:
        node.start()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        node.stop()
        return Unavailable(f"{error}. {HOW_TO_GET_ONE}")
    return node


def _spawn(command: list[Path | str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a server that dies with this process, and does not hear the terminal's Ctrl-C."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - it only makes one system call
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and see its helpers go, which leave when their pipe to it closes."""
    helpers: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        helpers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(helpers, timeout=5)
    for helper in alive:
        with suppress(psutil.NoSuchProcess):
            helper.kill()


def _sweep(nodes: Path) -> None:
    """Remove what killed test runs left."""
    for home in nodes.glob("*-*"):
        owner = home.name.split("-", 1)[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(home, ignore_errors=True)


def _answers(url: str) -> bool:
    parameters = amqp.connection_parameters(url, name="test")
    # pika logs errors at length where nothing listens yet.
    with suppress(*amqp.AWAY), socket.create_connection((parameters.host, parameters.port), timeout=2):
        pika.BlockingConnection(parameters).close()
        return True
    return False


def _delete_topology(url: str) -> None:
    connection = pika.BlockingConnection(amqp.connection_parameters(url, name="test"))
    channel = connection.channel()
    for queue in topology.QUEUES:
        channel.queue_delete(queue)
    channel.exchange_delete(topology.INTAKE_EXCHANGE)
    connection.close()
