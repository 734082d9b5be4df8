"""Dovecot's submission service, which checks OAuth tokens at their issuer, from Debian's packages.

It offers STARTTLS on a loopback port, takes XOAUTH2 and OAUTHBEARER only, and hands mail on to a relay. Three
things to know of Dovecot 2.3: it refuses AUTH lines of more than 1,032 octets, takes 8,194 without the initial
response, and its service dies when a next envelope rides right behind the final dot.
"""

from __future__ import annotations

import grp
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

import trustme

from tests.servers.availability import Unavailable
from tests.servers.debian_packages import DebianPackages
from tests.servers.processes import unprivileged_account
from tests.servers.unpacked_server import UnpackedServer
from tocsin_console.embedded.account import give

if TYPE_CHECKING:
    from pathlib import Path

    from tocsin_console.embedded.account import Account

_PACKAGES: Final = DebianPackages("dovecot", ("dovecot-core", "dovecot-submissiond"), prefix="lib", only_missing=True)

_BUILT_IN_PATHS: Final = {b"/usr/lib/dovecot/modules": b"./modules", b"/usr/bin/doveconf": b"./doveconf"}
"""What Dovecot's library has built in and no setting changes, and what to put there: Dovecot works in `base_dir`."""

_CONFIGURATION: Final = """
base_dir = {home}/base
state_dir = {home}/state
libexec_dir = {home}/programs/usr/lib/dovecot
login_plugin_dir = {home}/programs/usr/lib/dovecot/modules/login
mail_plugin_dir = {home}/programs/usr/lib/dovecot/modules
import_environment = LD_LIBRARY_PATH
default_login_user = {user}
default_internal_user = {user}
default_internal_group = {group}
default_process_limit = 200
default_client_limit = 500
mail_max_userip_connections = 0
log_path = {log}
auth_verbose = yes

protocols = submission
listen = 127.0.0.1
hostname = localhost
ssl = required
ssl_cert = <{home}/certificate.pem
ssl_key = <{home}/key.pem
disable_plaintext_auth = yes

auth_mechanisms = {mechanisms}
# Tests of refusals have no time for Dovecot's pauses.
auth_failure_delay = 0
passdb {{
  driver = oauth2
  mechanisms = {mechanisms}
  args = {home}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={home}/mail
}}
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:{home}/mail

submission_relay_host = {relay_host}
submission_relay_port = {relay_port}

service submission-login {{
  chroot =
  service_count = 0
  inet_listener submission {{
    port = {port}
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
"""


def from_debian() -> Path | Unavailable:
    """Give the unpacked packages of Dovecot 2.3, for `DovecotSubmission`; the first call downloads them."""
    unpacked = _PACKAGES.obtain(_place)
    if isinstance(unpacked, Unavailable):
        return Unavailable(f"no Dovecot: {unpacked.reason}")
    return unpacked


class DovecotSubmission(UnpackedServer):
    """A running submission service.

    A token is looked up at `tokeninfo_url`, to which it is appended; the answer's `email` has to be the mailbox that
    the client named. `relay` takes the mail without TLS and without a log-in.
    """

    name: ClassVar[str] = "dovecot"
    host = "localhost"

    def __init__(
        self,
        unpacked: Path,
        *,
        relay: tuple[str, int],
        tokeninfo_url: str,
        mechanisms: tuple[str, ...] = ("xoauth2", "oauthbearer"),
    ) -> None:
        super().__init__(unpacked)
        self._relay = relay
        self._mechanisms = mechanisms
        self._tokeninfo_url = tokeninfo_url
        authority = trustme.CA()
        self.ca_pem = authority.cert_pem.bytes().decode()
        self._certificate = authority.issue_cert(self.host, "127.0.0.1")

    def account(self) -> Account:
        """Anybody but root."""
        return unprivileged_account()

    def directory(self, home: Path) -> Path:
        """Its `base_dir`, where its library looks for what was built in as a path."""
        return home / "base"

    def libraries(self, programs: Path) -> list[Path]:
        """Its own as well."""
        dovecot = programs / "usr/lib/dovecot"
        return [dovecot, dovecot / "modules/old-stats", *super().libraries(programs)]

    def furnish(self, home: Path, programs: Path, account: Account) -> list[Path | str]:
        """Write what Dovecot reads, and make the directories that it writes in."""
        for name in ("base", "state", "mail"):
            (home / name).mkdir()
        for name, place in (("modules", "usr/lib/dovecot/modules"), ("doveconf", "usr/bin/doveconf")):
            (home / "base" / name).symlink_to(programs / place)
        self._certificate.private_key_pem.write_to_path(home / "key.pem")
        (home / "certificate.pem").write_bytes(b"".join(pem.bytes() for pem in self._certificate.cert_chain_pems))
        (home / "oauth2.conf").write_text(f"tokeninfo_url = {self._tokeninfo_url}\nusername_attribute = email\n")
        (home / "dovecot.conf").write_text(self._configuration(home, account))
        self.log.touch()
        for path in home.iterdir():
            give(path, account)
        return [programs / "usr/sbin/dovecot", "-F", "-c", home / "dovecot.conf"]

    def answers(self) -> bool:
        """Whether it greets."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            return connection.recv(512).startswith(b"220 ")
        return False

    def _configuration(self, home: Path, account: Account) -> str:
        relay_host, relay_port = self._relay
        return _CONFIGURATION.format(
            home=home,
            log=self.log,
            user=account.name,
            group=grp.getgrgid(account.gid).gr_name,
            uid=account.uid,
            gid=account.gid,
            mechanisms=" ".join(self._mechanisms),
            relay_host=relay_host,
            relay_port=relay_port,
            port=self.port,
        )


def _place(making: Path, unpacked: Path) -> None:
    """Put other paths into Dovecot's library where it has some built in, which must not be longer."""
    library = making / "usr/lib/dovecot/libdovecot.so.0.0.0"
    code = library.read_bytes()
    for built_in, ours in _BUILT_IN_PATHS.items():
        if code.count(b"\0" + built_in + b"\0") != 1:
            raise RuntimeError(f"this is another Dovecot than 2.3: {built_in.decode()} is not built into it")
        code = code.replace(b"\0" + built_in + b"\0", b"\0" + ours.ljust(len(built_in), b"\0") + b"\0")
    library.write_bytes(code)
