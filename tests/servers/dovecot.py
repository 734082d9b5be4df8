"""Dovecot's submission service, which checks OAuth tokens at their issuer, from Debian's packages.

It offers STARTTLS on a loopback port, takes XOAUTH2 and OAUTHBEARER only, and hands mail on to a relay. Three
things to know of Dovecot 2.3: it refuses AUTH lines of more than 1,032 octets, takes 8,194 without the initial
response, and its service dies when a next envelope rides right behind the final dot.
"""

from __future__ import annotations

import grp
import shutil
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, Self

import trustme

from tests.servers.availability import Unavailable
from tests.servers.debian_packages import DebianPackages, library_path
from tests.servers.installation import free_port
from tests.servers.processes import lay_programs, make_home, spawn, stop, unprivileged_account, wait_until_ready
from tocsin_console.embedded.account import give

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path
    from types import TracebackType

    from tocsin_console.embedded.account import Account

START_SECONDS: Final = 30.0

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


class DovecotSubmission:
    """A running submission service; use it in a `with` statement, from the main thread.

    A token is looked up at `tokeninfo_url`, to which it is appended, or at `introspection_url` in the way of
    `introspection_mode`: `auth` is a GET with the token as bearer, `post` is RFC 7662, signed with the id and
    secret of `introspection_client` in its body, `get` the same as a GET, where all of it is appended to the URL.
    The answer's `username_attribute` has to be the mailbox that the client named. `issuer_ca_pem` vouches for
    an https URL. `relay` takes the mail without TLS and without a log-in.
    RuntimeError where the service does not start.
    """

    host = "localhost"

    def __init__(
        self,
        unpacked: Path,
        *,
        relay: tuple[str, int],
        tokeninfo_url: str | None = None,
        introspection_url: str | None = None,
        introspection_mode: Literal["auth", "get", "post"] = "auth",
        introspection_client: tuple[str, str] = ("", ""),
        username_attribute: str = "email",
        mechanisms: tuple[str, ...] = ("xoauth2", "oauthbearer"),
        issuer_ca_pem: str | None = None,
    ) -> None:
        self.port = free_port()
        self._unpacked = unpacked
        self._relay = relay
        self._mechanisms = mechanisms
        self._token_check = {
            "tokeninfo_url": tokeninfo_url,
            "introspection_url": introspection_url,
            "introspection_mode": introspection_mode if introspection_url else None,
            "client_id": introspection_client[0] or None,
            "client_secret": introspection_client[1] or None,
            "username_attribute": username_attribute,
        }
        self._issuer_ca_pem = issuer_ca_pem
        authority = trustme.CA()
        self.ca_pem = authority.cert_pem.bytes().decode()
        self._certificate = authority.issue_cert(self.host, "127.0.0.1")
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What Dovecot says; it goes with the service."""
        assert self._home is not None
        return self._home / "dovecot.log"

    def __enter__(self) -> Self:
        account = unprivileged_account()
        self._home = make_home("dovecot", account)
        try:
            programs = lay_programs(self._unpacked, self._home, account)
            self._furnish(self._home, account)
            dovecot = programs / "usr/lib/dovecot"
            libraries = [dovecot, dovecot / "modules/old-stats", *library_path(programs)]
            self._process = spawn(
                [programs / "usr/sbin/dovecot", "-F", "-c", self._home / "dovecot.conf"],
                account=account,
                environment={"LD_LIBRARY_PATH": ":".join(str(directory) for directory in libraries)},
                directory=self._home / "base",
                log=self.log,
            )
            wait_until_ready(self._greets, self._process, seconds=START_SECONDS, log=self.log)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process of the service and remove its files. Harmless to repeat."""
        if self._process is not None:
            stop(self._process)
            self._process = None
        if self._home is not None:
            shutil.rmtree(self._home)
            self._home = None

    def _furnish(self, home: Path, account: Account) -> None:
        """Write what Dovecot reads, and make the directories that it writes in."""
        for name in ("base", "state", "mail"):
            (home / name).mkdir()
        for name, place in (("modules", "usr/lib/dovecot/modules"), ("doveconf", "usr/bin/doveconf")):
            (home / "base" / name).symlink_to(home / "programs" / place)
        self._certificate.private_key_pem.write_to_path(home / "key.pem")
        (home / "certificate.pem").write_bytes(b"".join(pem.bytes() for pem in self._certificate.cert_chain_pems))
        settings = [f"{name} = {value}" for name, value in self._token_check.items() if value is not None]
        if self._issuer_ca_pem is not None:
            (home / "issuer_ca.pem").write_text(self._issuer_ca_pem)
            settings.append(f"tls_ca_cert_file = {home}/issuer_ca.pem")
        (home / "oauth2.conf").write_text("\n".join([*settings, ""]))
        (home / "dovecot.conf").write_text(self._configuration(home, account))
        self.log.touch()
        for path in home.iterdir():
            give(path, account)

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

    def _greets(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            return connection.recv(512).startswith(b"220 ")
        return False


def _place(making: Path, unpacked: Path) -> None:
    """Put other paths into Dovecot's library where it has some built in, which must not be longer."""
    library = making / "usr/lib/dovecot/libdovecot.so.0.0.0"
    code = library.read_bytes()
    for built_in, ours in _BUILT_IN_PATHS.items():
        if code.count(b"\0" + built_in + b"\0") != 1:
            raise RuntimeError(f"this is another Dovecot than 2.3: {built_in.decode()} is not built into it")
        code = code.replace(b"\0" + built_in + b"\0", b"\0" + ours.ljust(len(built_in), b"\0") + b"\0")
    library.write_bytes(code)
