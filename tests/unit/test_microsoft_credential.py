"""What a Microsoft application proves itself with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from tests.builders import an_oauth_profile
from tests.servers.oauth_server_keys import ClientCertificate, new_key, private_pem, self_signed_certificate
from tocsin_schema.errors import TokenError
from tocsin_schema.ledger.oauth_providers import MICROSOFT_CLOUDS, GrantType, OAuthProvider
from tocsin_workers.tokens.grants import grant_of, subject_of
from tocsin_workers.tokens.grants.microsoft_credential import credential_of
from tocsin_workers.tokens.grants.msal_client import scopes_of
from tocsin_workers.tokens.grants.seam import GrantSecrets

if TYPE_CHECKING:
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

SECRET = SecretStr("s3cret")


@pytest.fixture(scope="module")
def certificate() -> ClientCertificate:
    return self_signed_certificate()


@pytest.fixture
def profile(certificate: ClientCertificate) -> OAuthProfile:
    return an_oauth_profile(certificate_pem=certificate.certificate_pem)


def refusal(profile: OAuthProfile, key: str) -> TokenError:
    with pytest.raises(TokenError) as caught:
        credential_of(profile, GrantSecrets(private_key=SecretStr(key)))
    assert caught.value.permanent
    assert "tocsin oauth set campus --certificate-file" in str(caught.value)
    return caught.value


def test_a_private_key_goes_before_a_secret(profile: OAuthProfile, certificate: ClientCertificate):
    key = SecretStr(certificate.private_key_pem)
    assert credential_of(profile, GrantSecrets(SECRET, key)) == {
        "private_key": certificate.private_key_pem,
        "public_certificate": certificate.certificate_pem,
    }


def test_without_a_private_key_the_secret_is_used_and_without_both_nothing(profile: OAuthProfile):
    assert credential_of(profile, GrantSecrets(SECRET)) == "s3cret"
    assert credential_of(profile, GrantSecrets()) is None


def test_a_private_key_without_a_certificate_is_told(profile: OAuthProfile, certificate: ClientCertificate):
    told = refusal(replace(profile, certificate_pem=None), certificate.private_key_pem)
    assert "a private key and no certificate" in told.problem


def test_a_key_of_another_certificate_is_told(profile: OAuthProfile):
    assert "does not belong to its certificate" in refusal(profile, private_pem(new_key())).problem


def test_a_key_that_is_not_rsa_is_told(profile: OAuthProfile):
    key = ec.generate_private_key(ec.SECP256R1())
    form, unencrypted = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, form, unencrypted).decode()
    assert "not an RSA key" in refusal(profile, pem).problem


@pytest.mark.parametrize("lacking", ["key", "certificate", "password"])
def test_what_cannot_be_read_is_told_without_being_shown(certificate: ClientCertificate, lacking: str):
    pem = "-----BEGIN CERTIFICATE-----\nhidden\n" if lacking == "certificate" else certificate.certificate_pem
    key = "hidden" if lacking == "key" else certificate.private_key_pem
    if lacking == "password":
        encrypted = serialization.BestAvailableEncryption(b"hidden")
        form = serialization.PrivateFormat.PKCS8
        key = new_key().private_bytes(serialization.Encoding.PEM, form, encrypted).decode()
    told = refusal(an_oauth_profile(certificate_pem=pem), key)
    assert "not readable as PEM" in told.problem
    assert "hidden" not in f"{told!r}{told.__cause__!r}"


@pytest.mark.parametrize("cloud", sorted(MICROSOFT_CLOUDS))
@pytest.mark.parametrize(
    ("grant_type", "subject"),
    [
        (GrantType.CLIENT_CREDENTIALS, ""),
        (GrantType.WORKLOAD_IDENTITY, ""),
        (GrantType.MANAGED_IDENTITY, ""),
        (GrantType.DEVICE_CODE, "alerts@campus.example"),
        (GrantType.REFRESH_TOKEN, "alerts@campus.example"),
    ],
)
def test_every_cloud_has_every_grant_and_a_sign_in_is_one_mailboxs_own(
    cloud: OAuthProvider, grant_type: GrantType, subject: str
):
    profile = an_oauth_profile(provider=cloud, grant_type=grant_type)
    assert grant_of(profile).lives_on_sign_in is bool(subject)
    assert subject_of(profile, "Alerts@campus.example") == subject


def test_a_grant_that_microsoft_lacks_is_refused_with_those_that_it_has():
    with pytest.raises(TokenError, match="workload_identity, managed_identity") as caught:
        grant_of(an_oauth_profile(grant_type=GrantType.JWT_BEARER))
    assert "custom" not in str(caught.value)


def test_scopes_that_msal_adds_by_itself_are_left_out():
    scope = "openid https://outlook.office.com/SMTP.Send offline_access profile"
    assert scopes_of(an_oauth_profile(scope=scope)) == ["https://outlook.office.com/SMTP.Send"]
    with pytest.raises(TokenError, match="it has no scope"):
        scopes_of(an_oauth_profile(scope="offline_access"))
