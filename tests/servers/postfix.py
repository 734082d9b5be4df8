"""Postfix from Debian's packages: its mail sink, the fastest server there is to measure senders by, and a relay."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

from tests.servers.availability import Unavailable
from tests.servers.debian_packages import DebianPackages
from tests.servers.processes import unprivileged_account
from tests.servers.unpacked_server import UnpackedServer
from tocsin_console.embedded.account import Account

if TYPE_CHECKING:
    from pathlib import Path

_PACKAGES: Final = DebianPackages("postfix", ("postfix",), prefix="lib", only_missing=True)

#: Postfix wants three users and groups that share nothing; these are on every Debian and own no files.
_MAIL_OWNER: Final = "nobody"
_DELIVERING_USER: Final = "daemon"
_SUBMITTING_GROUP: Final = "mail"

_MAIN: Final = """
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {home}/data
command_directory = {programs}/usr/sbin
daemon_directory = {programs}/usr/lib/postfix/sbin
shlib_directory = {programs}/usr/lib/postfix
mail_owner = {owner}
default_privs = {delivering}
setgid_group = {submitting}
import_environment = LD_LIBRARY_PATH MAIL_CONFIG
maillog_file = {home}/maillog
maillog_file_prefixes = /
myhostname = relay.campus.example
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
# It is not to hold back who hands mail in, and to begin with all of its connections.
in_flow_delay = 0
initial_destination_concurrency = 20
relayhost = [{relay_host}]:{relay_port}
{settings}
"""
_SERVICES: Final = """
{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
_OWNED_QUEUES: Final = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
                        "saved", "trace")  # fmt: skip
_WAITING: Final = ("maildrop", "incoming", "active", "deferred")

_COUNTER: Final = re.compile(rb"mesg=(\d+)")
_COUNTER_TAIL: Final = 200


def from_debian() -> Path | Unavailable:
    """Give the unpacked packages of Postfix; the first call downloads them."""
    unpacked = _PACKAGES.obtain()
    if isinstance(unpacked, Unavailable):
        return Unavailable(f"no Postfix: {unpacked.reason}")
    return unpacked


class SmtpSink(UnpackedServer):
    """A running `smtp-sink`: it takes every message and throws it away.

    It advertises PIPELINING, 8BITMIME, DSN, ENHANCEDSTATUSCODES and AUTH, has no TLS, and lets everybody in. With
    `counts` it counts its messages, at the price of a write each.
    """

    name: ClassVar[str] = "smtp-sink"
    host: ClassVar[str] = "127.0.0.1"

    def __init__(self, unpacked: Path, *, counts: bool = False) -> None:
        super().__init__(unpacked)
        self._counts = counts

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def messages(self) -> int:
        """Say how many messages were taken since its start; only with `counts`."""
        assert self._counts
        with self.log.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - _COUNTER_TAIL))
            found = _COUNTER.findall(log.read())
        return int(found[-1]) if found else 0

    def account(self) -> Account:
        """Anybody but root."""
        return unprivileged_account()

    def libraries(self, programs: Path) -> list[Path]:
        """Postfix's own as well."""
        return [programs / "usr/lib/postfix", *super().libraries(programs)]

    def furnish(self, home: Path, programs: Path, account: Account) -> list[Path | str]:
        """It reads no configuration."""
        counting = ["-c"] if self._counts else []
        return [programs / "usr/sbin/smtp-sink", *counting, "-m", "1000", f"{self.host}:{self.port}", "1000"]

    def answers(self) -> bool:
        """Whether it greets."""
        return _greets(self.host, self.port)


class PostfixRelay(UnpackedServer):
    """A running Postfix that hands everything on to one relay, without TLS; `settings` are further lines of main.cf.

    PermissionError where this process is not root: Postfix's master runs as nobody else.
    """

    name: ClassVar[str] = "postfix"
    host: ClassVar[str] = "127.0.0.1"

    def __init__(self, unpacked: Path, *, relay: tuple[str, int], settings: str = "") -> None:
        super().__init__(unpacked)
        self._relay = relay
        self._settings = settings

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def is_empty(self) -> bool:
        """Whether no mail is on its way, or waits."""
        return not any(files for name in _WAITING for _, _, files in os.walk(self._queue / name))

    def delivered(self) -> int:
        """Count the recipients that the relay has taken since the start."""
        assert self._home is not None
        return (self._home / "maillog").read_bytes().count(b" status=sent ")

    def account(self) -> Account:
        """Root; its daemons give up what they do not need."""
        if os.geteuid() != 0:
            raise PermissionError("Postfix runs only where its master is root")
        return Account("root", 0, os.getegid())

    def libraries(self, programs: Path) -> list[Path]:
        """Its own as well."""
        return [programs / "usr/lib/postfix", *super().libraries(programs)]

    def furnish(self, home: Path, programs: Path, account: Account) -> list[Path | str]:
        """Write its configuration, and make its queue and what it needs to write in."""
        self._queue = home / "queue"
        configuration = home / "etc"
        for directory in (self._queue, configuration, self._queue / "pid"):
            directory.mkdir(mode=0o755)
        owner = pwd.getpwnam(_MAIL_OWNER).pw_uid
        submitting = grp.getgrnam(_SUBMITTING_GROUP).gr_gid
        for directory in (home / "data", *(self._queue / name for name in _OWNED_QUEUES)):
            directory.mkdir(mode=0o700)
            os.chown(directory, owner, -1)
        for name, mode in (("maildrop", 0o730), ("public", 0o710)):
            directory = self._queue / name
            directory.mkdir()
            os.chown(directory, owner, submitting)
            directory.chmod(mode)
        (configuration / "main.cf").write_text(self._main(home, programs))
        (configuration / "master.cf").write_text(_SERVICES.format(port=f"{self.host}:{self.port}"))
        shutil.copy(programs / "etc/postfix/postfix-files", configuration)
        return [programs / "usr/lib/postfix/sbin/master", "-c", configuration, "-d"]

    def answers(self) -> bool:
        """Whether it greets."""
        return _greets(self.host, self.port)

    def _main(self, home: Path, programs: Path) -> str:
        relay_host, relay_port = self._relay
        return _MAIN.format(
            home=home,
            queue=self._queue,
            programs=programs,
            owner=_MAIL_OWNER,
            delivering=_DELIVERING_USER,
            submitting=_SUBMITTING_GROUP,
            relay_host=relay_host,
            relay_port=relay_port,
            settings=self._settings,
        )


def _greets(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=5) as connection:
        return connection.recv(512).startswith(b"220 ")
    return False
