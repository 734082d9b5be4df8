"""An OAuth 2.0 server that others wrote: `oidc-provider` from npm, under Microsoft's and Google's paths.

Node.js comes from the wheel that the type checker brings along, else from the machine; the npm packages of
`oauth_server/package-lock.json` are installed once under `.cache/oauth_server`. The server's own files, and what in
them is not oidc-provider's, are told in `oauth_server/server.mjs`. It dies with the process that started it.
"""

from __future__ import annotations

import json
import select
import shutil
import ssl
import subprocess
import tempfile
import time
import uuid
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, cast

import httpx
import jwt
import trustme

from tests.servers.availability import Unavailable
from tests.servers.oauth_server_keys import new_key, private_pem, public_pem, self_signed_certificate
from tests.servers.oauth_server_packages import (
    OLDEST_NODE,
    SOURCES,
    find_node,
    installed_modules,
)
from tests.servers.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from types import TracebackType


TENANT: Final = "5f3c2a10-7d64-4c1b-9a52-0e8d6b47c911"

MICROSOFT_SCOPE: Final = "https://outlook.office365.com/.default"
SMTP_SEND_SCOPE: Final = "https://outlook.office.com/SMTP.Send"
GOOGLE_SCOPE: Final = "https://mail.google.com/"
CUSTOM_SCOPE: Final = "mail.send"
#: What MSAL asks for beside SMTP_SEND_SCOPE, so that it gets a refresh token and the account's name.
SIGN_IN_SCOPES: Final = "openid profile offline_access"

MAILBOX: Final = "alerts@campus.example"
OTHER_MAILBOX: Final = "library@campus.example"

#: Client credentials, the secret in the body and nowhere else.
POST_CLIENT_ID: Final = "a1b7d0de-3f4c-4b52-8f0e-2f9c1d7e5a01"
#: Client credentials, the secret in the Basic header and nowhere else.
BASIC_CLIENT_ID: Final = "a1b7d0de-3f4c-4b52-8f0e-2f9c1d7e5a02"
#: Client credentials with a certificate: `OAuthServer.certificate`.
CERTIFICATE_CLIENT_ID: Final = "a1b7d0de-3f4c-4b52-8f0e-2f9c1d7e5a03"
#: Client credentials with a foreign issuer's token: `OAuthServer.federated_token`.
FEDERATED_CLIENT_ID: Final = "a1b7d0de-3f4c-4b52-8f0e-2f9c1d7e5a04"
#: Device code and refresh token, a public client.
DEVICE_CLIENT_ID: Final = "a1b7d0de-3f4c-4b52-8f0e-2f9c1d7e5a05"
#: Refresh token, rotated at each use; the secret in the body.
REFRESH_CLIENT_ID: Final = "a1b7d0de-3f4c-4b52-8f0e-2f9c1d7e5a06"
#: Refresh token, never rotated, as Google's; the secret in the body.
GOOGLE_CLIENT_ID: Final = "123456789012-tocsin.apps.googleusercontent.com"
#: JWT bearer without client authentication: `OAuthServer.service_account_info`.
SERVICE_ACCOUNT: Final = "tocsin@campus-mail.iam.gserviceaccount.com"
#: With what a form or a header must encode.
CLIENT_SECRET: Final = "s3cret~Value/with+signs=and%25"

GOOGLE_AUDIENCE: Final = "https://oauth2.googleapis.com/token"
FEDERATION_ISSUER: Final = "https://cluster.campus.example"
FEDERATION_SUBJECT: Final = "system:serviceaccount:mail:tocsin"
FEDERATION_AUDIENCE: Final = "api://AzureADTokenExchange"

CLIENT_CREDENTIALS: Final = "client_credentials"
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
REFRESH_TOKEN: Final = "refresh_token"
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

_MAIL_SCOPES: Final = (
    MICROSOFT_SCOPE,
    "https://outlook.office365.us/.default",
    "https://partner.outlook.cn/.default",
    SMTP_SEND_SCOPE,
    GOOGLE_SCOPE,
    CUSTOM_SCOPE,
)


@dataclass(frozen=True)
class Settings:
    """What tests may change while the server runs. Times are in whole seconds."""

    token_seconds: int = 3600
    device_code_seconds: int = 600
    #: The wait between two polls that the server asks for; MSAL obeys.
    poll_seconds: int = 1
    #: By client id, whose mailbox the client's own tokens are good for at a mail server.
    mailboxes: dict[str, str] = field(
        default_factory=lambda: dict.fromkeys(
            (POST_CLIENT_ID, BASIC_CLIENT_ID, CERTIFICATE_CLIENT_ID, FEDERATED_CLIENT_ID), MAILBOX
        )
    )
    #: For whom the service account may act.
    delegated: tuple[str, ...] = (MAILBOX, OTHER_MAILBOX)
    #: The application roles in clients' own JWTs.
    roles: tuple[str, ...] = ("SMTP.SendAsApp",)
    #: As at Microsoft: the old refresh token goes on working. Else its reuse revokes the whole family.
    old_refresh_tokens_live: bool = False


class OAuthServer:
    """A running server. Its URLs are under `https://localhost`, with a certificate that `ca_pem` vouches for."""

    def __init__(self, settings: Settings, modules: Path, node: Path) -> None:
        authority = trustme.CA()
        self.ca_pem = authority.cert_pem.bytes().decode()
        self.certificate = self_signed_certificate()
        self._service_account_key, self._federation_key = new_key(), new_key()
        self.service_account_key_pem = private_pem(self._service_account_key)
        self._settings = settings
        self._stack = ExitStack()
        self._process = self._start(modules, node)
        try:
            ready = self._hand_over(_configuration(self, authority))
        except BaseException:
            self.stop()
            raise
        self.port, self.plain_port = int(ready["port"]), int(ready["plain_port"])

    @staticmethod
    def obtain(settings: Settings | None = None) -> OAuthServer | Unavailable:
        """Install what is needed, once, and start a server. RuntimeError where it does not come up."""
        node = find_node()
        if node is None:
            return Unavailable(f"no OAuth server: there is no Node.js {OLDEST_NODE} or newer")
        modules = installed_modules(node)
        if isinstance(modules, Unavailable):
            return modules
        return OAuthServer(settings or Settings(), modules, node)

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def authority(self) -> str:
        """What MSAL takes as `authority`, with `instance_discovery=False`."""
        return f"{self.origin}/{TENANT}"

    @property
    def issuer(self) -> str:
        return f"{self.authority}/v2.0"

    @property
    def microsoft_token_url(self) -> str:
        return f"{self.authority}/oauth2/v2.0/token"

    @property
    def device_authorization_url(self) -> str:
        return f"{self.authority}/oauth2/v2.0/devicecode"

    @property
    def google_token_url(self) -> str:
        return f"{self.origin}/google/token"

    @property
    def token_url(self) -> str:
        """The same endpoint under a plain name; `/{TENANT}/token` is another."""
        return f"{self.origin}/token"

    @property
    def introspection_url(self) -> str:
        """RFC 7662, for clients with a secret and opaque tokens; oidc-provider refuses JWTs there."""
        return f"{self.origin}/introspect"

    @property
    def tokeninfo_url(self) -> str:
        """Where a mail server asks about any token: plain HTTP, GET `?access_token=` or POST `token=`."""
        return f"http://127.0.0.1:{self.plain_port}/tokeninfo"

    @cached_property
    def client(self) -> httpx.Client:
        """An HTTP client that trusts the server, closed with it."""
        trust = ssl.create_default_context(cadata=self.ca_pem)
        return self._stack.enter_context(httpx.Client(verify=trust, trust_env=False, timeout=PATIENCE_SECONDS))

    def service_account_info(self) -> dict[str, str]:
        """Give what stands in the key file that Google hands out for a service account."""
        return {
            "type": "service_account",
            "project_id": "campus-mail",
            "private_key_id": "0123456789abcdef0123456789abcdef01234567",
            "private_key": self.service_account_key_pem,
            "client_email": SERVICE_ACCOUNT,
            "client_id": "123456789012345678901",
            "token_uri": self.google_token_url,
        }

    def federated_token(self, *, lifetime_seconds: int = 3600, subject: str = FEDERATION_SUBJECT) -> str:
        """Give a token as Kubernetes mounts it for FEDERATED_CLIENT_ID; it may be used again and again."""
        now = int(time.time())
        times = {"iat": now, "nbf": now, "exp": now + lifetime_seconds}
        claims = {"iss": FEDERATION_ISSUER, "sub": subject, "aud": [FEDERATION_AUDIENCE], **times}
        return jwt.encode(claims, self._federation_key, algorithm="RS256")

    def open_user_codes(self) -> list[str]:
        """Give the user codes that nobody has answered yet, oldest first."""
        return cast("list[str]", self._administer("user-codes"))

    def approve(self, user_code: str, account: str = MAILBOX) -> None:
        """Sign in as `account` and agree, as a person in the browser would."""
        self._administer("device", user_code=user_code, action="approve", account=account)

    def deny(self, user_code: str, error: str = "access_denied") -> None:
        """Decline. Microsoft's `error` is `authorization_declined`, the standard's is the default."""
        self._administer("device", user_code=user_code, action="deny", error=error)

    def expire(self, user_code: str) -> None:
        """Let the device code expire now."""
        self._administer("device", user_code=user_code, action="expire")

    def mint_refresh_token(self, client_id: str, account: str = MAILBOX, scope: str = GOOGLE_SCOPE) -> str:
        """Give a refresh token, as after a consent in the browser. `scope` bounds what it may be used for."""
        minted = self._administer("refresh-token", client_id=client_id, account=account, scope=scope)
        return cast("dict[str, str]", minted)["refresh_token"]

    def revoke(self, account: str) -> None:
        """Revoke what the account ever agreed to: refresh tokens, device codes, and access tokens at `tokeninfo`."""
        self._administer("revoke", account=account)

    def tokeninfo(self, token: str) -> dict[str, object] | None:
        """Give what a mail server is told about an access token, or None where it is not good."""
        answer = self.client.get(self.tokeninfo_url, params={"access_token": token})
        return cast("dict[str, object]", answer.json()) if answer.is_success else None

    def counts(self) -> dict[tuple[str, str], int]:
        """Count the token requests, refused ones too, by client id and grant type."""
        rows = cast("list[dict[str, object]]", self._administer("counts"))
        return {(str(row["client_id"]), str(row["grant_type"])): int(str(row["requests"])) for row in rows}

    def configure(self, settings: Settings) -> None:
        """Change the settings from now on."""
        self._administer("settings", **asdict(settings))

    def reset(self) -> None:
        """Forget tokens, codes and counts, and take up the settings that the server began with."""
        self._administer("reset")

    def stop(self) -> None:
        """End the server; harmless to repeat."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, modules: Path, node: Path) -> subprocess.Popen[str]:
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tocsin-test-oauth-")))
        # Node.js looks for packages beside the file that wants them, and we put none into the repository.
        for source in SOURCES.glob("*.mjs"):
            shutil.copy(source, directory)
        (directory / "node_modules").symlink_to(modules)
        self._log = directory / "server.log"
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [node, directory / "server.mjs"],
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._stack.callback(_end, process)
        return process

    def _hand_over(self, configuration: dict[str, object]) -> dict[str, int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # what it has to say then stands in its log
            self._process.stdin.write(json.dumps(configuration) + "\n")
            self._process.stdin.flush()
        answered, _, _ = select.select([self._process.stdout], [], [], PATIENCE_SECONDS)
        line = self._process.stdout.readline() if answered else ""
        if not line:
            told = self._log.read_text(errors="replace").strip()[-1500:]
            raise RuntimeError(f"the OAuth server does not start: {told or 'it says nothing'}")
        return json.loads(line)

    def _administer(self, what: str, **content: object) -> object:
        answer = self.client.post(f"{self.origin}/admin/{what}", json=content)
        if not answer.is_success:
            raise RuntimeError(f"the OAuth server cannot do {what}: {answer.text}")
        return answer.json()


def _configuration(server: OAuthServer, authority: trustme.CA) -> dict[str, object]:
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    internal_secret = uuid.uuid4().hex
    return {
        "tls": {"key": leaf.private_key_pem.bytes().decode(), "cert": leaf.cert_chain_pems[0].bytes().decode()},
        "tenant": TENANT,
        "scopes": [*SIGN_IN_SCOPES.split(), "email", *_MAIL_SCOPES],
        "clients": _clients(server.certificate.certificate_pem, internal_secret),
        "unrotated": [GOOGLE_CLIENT_ID],
        "assertions": {
            "client_id": SERVICE_ACCOUNT,
            "public_key": public_pem(server._service_account_key),
            "google_audience": GOOGLE_AUDIENCE,
        },
        "federation": {
            "client_id": FEDERATED_CLIENT_ID,
            "secret": internal_secret,
            "public_key": public_pem(server._federation_key),
            "issuer": FEDERATION_ISSUER,
            "subject": FEDERATION_SUBJECT,
            "audience": FEDERATION_AUDIENCE,
        },
        "settings": asdict(server._settings),
    }


def _clients(certificate_pem: str, internal_secret: str) -> list[dict[str, object]]:
    """Give the clients in the words of RFC 7591."""

    def client(client_id: str, method: str, grants: tuple[str, ...], scope: str, **more: object) -> dict[str, object]:
        named = {"client_id": client_id, "token_endpoint_auth_method": method, "grant_types": grants, "scope": scope}
        return {**named, **more}

    own, mail = (CLIENT_CREDENTIALS,), " ".join(_MAIL_SCOPES)
    signed_in = f"{SIGN_IN_SCOPES} email {mail}"
    post, basic = "client_secret_post", "client_secret_basic"
    return [
        client(POST_CLIENT_ID, post, own, mail, client_secret=CLIENT_SECRET),
        client(BASIC_CLIENT_ID, basic, own, mail, client_secret=CLIENT_SECRET),
        client(CERTIFICATE_CLIENT_ID, "private_key_jwt", own, mail, certificate=certificate_pem),
        client(FEDERATED_CLIENT_ID, post, own, mail, client_secret=internal_secret),
        client(DEVICE_CLIENT_ID, "none", (DEVICE_CODE, REFRESH_TOKEN), signed_in),
        client(REFRESH_CLIENT_ID, post, (REFRESH_TOKEN,), signed_in, client_secret=CLIENT_SECRET),
        client(GOOGLE_CLIENT_ID, post, (REFRESH_TOKEN,), signed_in, client_secret=CLIENT_SECRET),
        client(SERVICE_ACCOUNT, "none", (JWT_BEARER,), f"{GOOGLE_SCOPE} {CUSTOM_SCOPE}"),
    ]


def _end(process: subprocess.Popen[str]) -> None:
    """Close the server's standard input, at which it ends, and see it go."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
