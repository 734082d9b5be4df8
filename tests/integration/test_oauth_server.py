"""The OAuth server of these tests does what its driver says, so that our grants are judged by it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.parse import quote

import httpx
import jwt
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from jwt.utils import base64url_encode

from tests.servers.oauth_server import (
    BASIC_CLIENT_ID,
    CERTIFICATE_CLIENT_ID,
    CLIENT_CREDENTIALS,
    CLIENT_SECRET,
    CUSTOM_SCOPE,
    DEVICE_CLIENT_ID,
    DEVICE_CODE,
    FEDERATED_CLIENT_ID,
    GOOGLE_CLIENT_ID,
    GOOGLE_SCOPE,
    JWT_BEARER,
    MAILBOX,
    MICROSOFT_SCOPE,
    OTHER_MAILBOX,
    POST_CLIENT_ID,
    REFRESH_CLIENT_ID,
    REFRESH_TOKEN,
    SERVICE_ACCOUNT,
    SIGN_IN_SCOPES,
    SMTP_SEND_SCOPE,
    TENANT,
    OAuthServer,
    Settings,
)
from tests.servers.patience import PATIENCE_SECONDS

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def server(oauth_server: OAuthServer) -> OAuthServer:
    return oauth_server


def ask(server: OAuthServer, grant_type: str, url: str | None = None, **form: str) -> httpx.Response:
    return server.client.post(url or server.microsoft_token_url, data={"grant_type": grant_type, **form})


def own_token(server: OAuthServer, scope: str, **form: str) -> httpx.Response:
    credentials = {"client_id": POST_CLIENT_ID, "client_secret": CLIENT_SECRET}
    return ask(server, CLIENT_CREDENTIALS, scope=scope, **{**credentials, **form})


def with_refresh_token(server: OAuthServer, client_id: str, token: str) -> httpx.Response:
    return ask(server, REFRESH_TOKEN, client_id=client_id, client_secret=CLIENT_SECRET, refresh_token=token)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def test_discovery_names_microsofts_paths(server: OAuthServer) -> None:
    told = server.client.get(f"{server.issuer}/.well-known/openid-configuration").json()
    assert told["issuer"] == f"{server.origin}/{TENANT}/v2.0"
    assert told["token_endpoint"] == f"{server.origin}/{TENANT}/oauth2/v2.0/token"
    assert told["device_authorization_endpoint"] == server.device_authorization_url


def test_microsofts_scope_gives_a_jwt_for_its_resource_and_other_scopes_opaque_tokens(server: OAuthServer) -> None:
    token = own_token(server, MICROSOFT_SCOPE).json()["access_token"]
    keys = jwt.PyJWKSet.from_dict(server.client.get(f"{server.authority}/discovery/v2.0/keys").json())
    claims = jwt.decode(token, keys.keys[0], algorithms=["RS256"], audience="https://outlook.office365.com")
    assert (claims["tid"], claims["roles"], claims["iss"]) == (TENANT, ["SMTP.SendAsApp"], server.issuer)
    assert "." not in own_token(server, CUSTOM_SCOPE).json()["access_token"]
    assert error_of(own_token(server, "https://outlook.office365.com/.defualt")) == (400, "invalid_scope")


def test_a_secret_counts_only_where_the_client_is_registered_to_put_it(server: OAuthServer) -> None:
    def basic(client_id: str, secret: str) -> httpx.Response:
        form = {"grant_type": CLIENT_CREDENTIALS, "scope": CUSTOM_SCOPE}
        return server.client.post(server.token_url, data=form, auth=(client_id, secret))

    encoded = quote(CLIENT_SECRET, safe="")  # RFC 6749 section 2.3.1
    assert basic(BASIC_CLIENT_ID, encoded).is_success
    assert error_of(basic(BASIC_CLIENT_ID, CLIENT_SECRET)) == (401, "invalid_client")
    assert error_of(own_token(server, CUSTOM_SCOPE, client_id=BASIC_CLIENT_ID)) == (401, "invalid_client")
    assert error_of(basic(POST_CLIENT_ID, encoded)) == (401, "invalid_client")
    assert error_of(own_token(server, CUSTOM_SCOPE, client_secret="another")) == (401, "invalid_client")


def test_a_certificate_client_needs_its_key_its_thumbprint_and_a_fresh_assertion(server: OAuthServer) -> None:
    def signed_in(thumbprint: bytes) -> tuple[httpx.Response, dict[str, str]]:
        own = {"iss": CERTIFICATE_CLIENT_ID, "sub": CERTIFICATE_CLIENT_ID, "aud": server.microsoft_token_url}
        claims = {**own, "exp": int(time.time()) + 600, "jti": str(uuid.uuid4())}
        header = {"x5t#S256": base64url_encode(thumbprint).decode()}
        assertion = jwt.encode(claims, server.certificate.private_key_pem, algorithm="PS256", headers=header)
        form = asserted(CERTIFICATE_CLIENT_ID, assertion)
        return ask(server, CLIENT_CREDENTIALS, **form), form

    thumbprint = x509.load_pem_x509_certificate(server.certificate.certificate_pem.encode()).fingerprint(
        hashes.SHA256()
    )
    answer, form = signed_in(thumbprint)
    assert answer.is_success
    assert error_of(ask(server, CLIENT_CREDENTIALS, **form)) == (401, "invalid_client")
    assert error_of(signed_in(bytes(32))[0]) == (401, "invalid_client")


def test_a_federated_token_is_good_again_and_again_but_for_its_own_subject_only(server: OAuthServer) -> None:
    form = asserted(FEDERATED_CLIENT_ID, server.federated_token())
    assert [ask(server, CLIENT_CREDENTIALS, **form).status_code for _ in range(2)] == [200, 200]
    strange = asserted(FEDERATED_CLIENT_ID, server.federated_token(subject="system:serviceaccount:mail:other"))
    assert error_of(ask(server, CLIENT_CREDENTIALS, **strange)) == (401, "invalid_client")


def asserted(client_id: str, assertion: str) -> dict[str, str]:
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    form = {"client_id": client_id, "client_assertion": assertion, "client_assertion_type": kind}
    return {**form, "scope": MICROSOFT_SCOPE}


class TestADeviceCode:
    def begin(self, server: OAuthServer) -> dict[str, str]:
        scope = f"{SMTP_SEND_SCOPE} {SIGN_IN_SCOPES}"
        answer = server.client.post(
            server.device_authorization_url, data={"client_id": DEVICE_CLIENT_ID, "scope": scope}
        )
        return answer.json()

    def poll(self, server: OAuthServer, flow: dict[str, str]) -> httpx.Response:
        return ask(server, DEVICE_CODE, client_id=DEVICE_CLIENT_ID, device_code=flow["device_code"])

    def test_gives_the_tokens_of_whoever_agreed(self, server: OAuthServer) -> None:
        server.configure(Settings(device_code_seconds=77, poll_seconds=3))
        flow = self.begin(server)
        assert (flow["expires_in"], flow["interval"]) == (77, 3)
        assert server.open_user_codes() == [flow["user_code"]]
        assert error_of(self.poll(server, flow)) == (400, "authorization_pending")
        server.approve(flow["user_code"], OTHER_MAILBOX)
        told = self.poll(server, flow).json()
        identity = jwt.decode(told["id_token"], options={"verify_signature": False})
        assert identity["preferred_username"] == OTHER_MAILBOX
        info = server.tokeninfo(told["access_token"])
        assert info is not None
        assert (info["username"], info["aud"]) == (OTHER_MAILBOX, "https://outlook.office.com")
        assert told["refresh_token"]

    def test_that_was_declined_is_not_one_that_expired(self, server: OAuthServer) -> None:
        declined, expired = self.begin(server), self.begin(server)
        server.deny(declined["user_code"], "authorization_declined")
        server.expire(expired["user_code"])
        assert error_of(self.poll(server, declined)) == (400, "authorization_declined")
        assert error_of(self.poll(server, expired)) == (400, "expired_token")


class TestARefreshToken:
    def test_used_twice_revokes_its_family(self, server: OAuthServer) -> None:
        first = server.mint_refresh_token(REFRESH_CLIENT_ID)
        second = with_refresh_token(server, REFRESH_CLIENT_ID, first).json()["refresh_token"]
        third = with_refresh_token(server, REFRESH_CLIENT_ID, second).json()["refresh_token"]
        assert error_of(with_refresh_token(server, REFRESH_CLIENT_ID, first)) == (400, "invalid_grant")
        assert error_of(with_refresh_token(server, REFRESH_CLIENT_ID, third)) == (400, "invalid_grant")

    def test_goes_on_living_as_at_microsoft_where_a_test_wants_it(self, server: OAuthServer) -> None:
        server.configure(Settings(old_refresh_tokens_live=True))
        first = server.mint_refresh_token(REFRESH_CLIENT_ID)
        second = with_refresh_token(server, REFRESH_CLIENT_ID, first).json()["refresh_token"]
        assert second != with_refresh_token(server, REFRESH_CLIENT_ID, first).json()["refresh_token"] != first

    def test_is_not_replaced_at_google(self, server: OAuthServer) -> None:
        token = server.mint_refresh_token(GOOGLE_CLIENT_ID)
        assert with_refresh_token(server, GOOGLE_CLIENT_ID, token).json()["refresh_token"] == token

    def test_dies_with_its_access_tokens_when_the_account_is_revoked(self, server: OAuthServer) -> None:
        token, other = (server.mint_refresh_token(GOOGLE_CLIENT_ID, account) for account in (MAILBOX, OTHER_MAILBOX))
        access = with_refresh_token(server, GOOGLE_CLIENT_ID, token).json()["access_token"]
        assert server.tokeninfo(access) is not None
        server.revoke(MAILBOX)
        assert server.tokeninfo(access) is None
        assert error_of(with_refresh_token(server, GOOGLE_CLIENT_ID, token)) == (400, "invalid_grant")
        assert with_refresh_token(server, GOOGLE_CLIENT_ID, other).is_success


class TestAServiceAccount:
    def ask(self, server: OAuthServer, *, key: str | None = None, **claims: object) -> httpx.Response:
        now = int(time.time())
        usual = {"iss": SERVICE_ACCOUNT, "aud": server.google_token_url, "iat": now, "exp": now + 3600}
        content = {**usual, "sub": MAILBOX, "scope": GOOGLE_SCOPE, **claims}
        assertion = jwt.encode(content, key or server.service_account_key_pem, algorithm="RS256")
        return ask(server, JWT_BEARER, server.google_token_url, assertion=assertion)

    def test_gets_tokens_for_the_mailboxes_that_were_delegated_to_it(self, server: OAuthServer) -> None:
        answer = self.ask(server, aud="https://oauth2.googleapis.com/token").json()
        info = server.tokeninfo(answer["access_token"])
        assert info is not None
        assert info["email"] == MAILBOX
        assert "refresh_token" not in answer
        assert error_of(self.ask(server, sub="stranger@campus.example")) == (401, "unauthorized_client")
        assert error_of(self.ask(server, scope="https://example.org/other")) == (401, "unauthorized_client")

    def test_needs_its_own_key_and_a_short_life(self, server: OAuthServer) -> None:
        forged = self.ask(server, key=server.certificate.private_key_pem)
        assert forged.json() == {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        assert error_of(self.ask(server, exp=int(time.time()) + 3700)) == (400, "invalid_grant")
        assert error_of(self.ask(server, aud="https://elsewhere.example/token")) == (400, "invalid_grant")


def test_a_mail_server_learns_whose_a_token_is_and_whether_it_is_good(server: OAuthServer) -> None:
    server.configure(Settings(mailboxes={POST_CLIENT_ID: OTHER_MAILBOX}))
    for scope in (MICROSOFT_SCOPE, CUSTOM_SCOPE):
        token = own_token(server, scope).json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        answers = (
            httpx.get(server.tokeninfo_url, params={"access_token": token}),
            httpx.get(server.tokeninfo_url, headers=bearer),
            httpx.post(server.tokeninfo_url, data={"token": token}),
        )
        assert {answer.json()["username"] for answer in answers} == {OTHER_MAILBOX}
    assert httpx.get(server.tokeninfo_url, params={"access_token": "made-up"}).status_code == 401
    assert httpx.post(server.tokeninfo_url, data={"token": "made-up"}).json()["active"] is False


def test_token_requests_are_counted_refused_ones_too_until_the_reset(server: OAuthServer) -> None:
    server.configure(Settings(token_seconds=30))
    assert own_token(server, CUSTOM_SCOPE).json()["expires_in"] == 30
    own_token(server, CUSTOM_SCOPE, client_secret="another")
    assert server.counts() == {(POST_CLIENT_ID, CLIENT_CREDENTIALS): 2}
    server.reset()
    assert server.counts() == {}
    assert own_token(server, CUSTOM_SCOPE).json()["expires_in"] == 3600


def test_the_server_is_gone_when_who_started_it_was_killed(server: OAuthServer, tmp_path: Path) -> None:
    del server  # it says whether there can be one
    program = (
        "import sys; from tests.servers.oauth_server import OAuthServer;"
        " print(OAuthServer.obtain().process_id, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # what the killed one leaves goes with the test's own files
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        node = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
        assert psutil.wait_procs([node], timeout=PATIENCE_SECONDS)[0] == [node]
