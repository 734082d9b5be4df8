"""Why token endpoints refuse: every row of the table with an answer as it comes, its cause and its exact fix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import CLIENT_ID, THEN, an_oauth_profile
from tocsin_workers.tokens.refusal_causes import PASSING, ROWS, Cause, Row, find_row
from tocsin_workers.tokens.refusal_fixes import EXPLANATIONS, for_sending_profile
from tocsin_workers.tokens.refusals import Refusal, cause_of, nobody_signed_in, read_refusal, refused

if TYPE_CHECKING:
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

MAILBOX = "alerts@campus.example"
DELEGATION = "104729104729104729104"

SECRET = an_oauth_profile()
ODD_SCOPE = replace(SECRET, scope="https://outlook.office365.com/SMTP")
CERTIFICATE = replace(SECRET, certificate_pem="PEM", private_key_set_at=THEN, secret_set_at=None)
WORKLOAD = replace(SECRET, grant_type="workload_identity", token_file="/run/token", secret_set_at=None)
MACHINE = replace(SECRET, grant_type="managed_identity", client_id=None, tenant_id=None, secret_set_at=None)
PUBLIC = replace(SECRET, grant_type="device_code", secret_set_at=None)
PERSON = replace(SECRET, grant_type="refresh_token")
SERVICE_ACCOUNT = an_oauth_profile(
    provider="google",
    grant_type="jwt_bearer",
    token_endpoint="https://oauth2.googleapis.com/token",
    scope="https://mail.google.com/",
    tenant_id=None,
    client_id="tocsin@campus.iam.gserviceaccount.com",
    delegation_client_id=DELEGATION,
    secret_set_at=None,
)
GMAIL_SCOPE = replace(SERVICE_ACCOUNT, scope="gmail.send")
GOOGLE_USER = replace(SERVICE_ACCOUNT, grant_type="refresh_token", client_id="1-a.apps", secret_set_at=THEN)
CUSTOM = an_oauth_profile(provider="custom", token_endpoint="https://sso.example/token", tenant_id=None, scope="mail")
CUSTOM_KEY = replace(CUSTOM, grant_type="jwt_bearer", secret_set_at=None)
CUSTOM_USER = replace(CUSTOM, grant_type="device_code", secret_set_at=None)

SET_USER = f"`tocsin profile set PROFILE --user ADDRESS` (now {MAILBOX})"
REPLACE_SECRET = "`tocsin oauth replace-secret campus`"
SET_CERTIFICATE = "`tocsin oauth set campus --certificate-file F --private-key-file F`"
SET_KEY = "`tocsin oauth set campus --private-key-file F`"
SET_SERVICE_ACCOUNT = "`tocsin oauth set campus --service-account-file F`"
SET_REFRESH_TOKEN = f"`tocsin oauth set campus --refresh-token-file F --user {MAILBOX}`"
SIGN_IN = f"`tocsin oauth acquire campus --user {MAILBOX}`"
CLIENT_AND_TENANT = "`tocsin oauth set campus --client-id ID --tenant-id ID`"
SCOPE_365 = "`tocsin oauth set campus --scope https://outlook.office365.com/.default`"
SHOW = "`tocsin oauth show campus`"
SHORT_LIVED = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp"
    " values in the JWT claim."
)
DELEGATED = (
    "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the"
    " scopes requested."
)


@dataclass(frozen=True)
class Sample:
    profile: OAuthProfile
    error: str
    description: str
    cause: Cause
    fix: str | None = None
    subtype: str = ""

    @property
    def refusal(self) -> Refusal:
        return Refusal(self.error, self.description, self.subtype)


MICROSOFT = (
    Sample(
        SECRET, "invalid_client", "AADSTS7000215: Invalid client secret provided.", Cause.SECRET_WRONG, REPLACE_SECRET
    ),
    Sample(SECRET, "invalid_client", "AADSTS7000222: The keys are expired.", Cause.SECRET_EXPIRED, REPLACE_SECRET),
    Sample(SECRET, "invalid_client", "AADSTS70002: Error validating.", Cause.SECRET_WRONG, REPLACE_SECRET),
    Sample(CERTIFICATE, "invalid_client", "AADSTS70002: Error.", Cause.CERTIFICATE_UNKNOWN, SET_CERTIFICATE),
    Sample(CERTIFICATE, "invalid_client", "AADSTS700027: not registered", Cause.CERTIFICATE_UNKNOWN, SET_CERTIFICATE),
    Sample(CERTIFICATE, "invalid_client", "AADSTS50013: Assertion failed", Cause.CERTIFICATE_UNKNOWN, SET_CERTIFICATE),
    Sample(CERTIFICATE, "invalid_client", "AADSTS700024: not within its valid time range", Cause.CLOCK_WRONG, "(NTP)"),
    Sample(
        CERTIFICATE,
        "invalid_client",
        "AADSTS70002: Error validating credentials. AADSTS50012: Client assertion is not within its valid time range.",
        Cause.CLOCK_WRONG,
        "(NTP)",
    ),
    Sample(WORKLOAD, "invalid_client", "AADSTS700024: not in time", Cause.FEDERATED_TOKEN_EXPIRED, "/run/token"),
    Sample(WORKLOAD, "invalid_request", "AADSTS70021: No matching record", Cause.FEDERATION_MISMATCH, "Federated cred"),
    Sample(
        WORKLOAD, "invalid_client", "AADSTS700211: issuer", Cause.FEDERATION_MISMATCH, "issuer, subject and audience"
    ),
    Sample(WORKLOAD, "invalid_client", "AADSTS700213: subject", Cause.FEDERATION_MISMATCH, CLIENT_ID),
    Sample(WORKLOAD, "invalid_client", "AADSTS700027: signature", Cause.FEDERATION_MISMATCH, CLIENT_ID),
    Sample(
        PUBLIC, "invalid_client", "AADSTS7000218: client_secret", Cause.PUBLIC_CLIENT_OFF, "Allow public client flows"
    ),
    Sample(SECRET, "invalid_client", "AADSTS700025: Client is public", Cause.SECRET_UNWANTED, "device_code"),
    Sample(PERSON, "invalid_client", "AADSTS700025: Client is public", Cause.SECRET_UNWANTED, "--grant device_code`"),
    Sample(PUBLIC, "invalid_client", "AADSTS700025: Client is public", Cause.SECRET_UNWANTED, SIGN_IN),
    Sample(MACHINE, "invalid_request", "Identity not found", Cause.NO_IDENTITY, "`tocsin oauth set campus --client-id"),
    Sample(SECRET, "unauthorized_client", "AADSTS700016: not found", Cause.CLIENT_UNKNOWN, CLIENT_AND_TENANT),
    Sample(SECRET, "unauthorized_client", "AADSTS7000112: is disabled", Cause.CLIENT_DISABLED, CLIENT_ID),
    Sample(SECRET, "invalid_request", "AADSTS90038: cloud", Cause.WRONG_CLOUD, "--provider microsoft365-gcc-high"),
    Sample(SECRET, "invalid_request", "AADSTS90002: Tenant 'x' not found.", Cause.TENANT_UNKNOWN, "--tenant-id ID`"),
    Sample(
        SECRET, "invalid_request", "AADSTS900023: neither a valid DNS name", Cause.TENANT_UNKNOWN, "--tenant-id ID`"
    ),
    Sample(SECRET, "invalid_tenant", "", Cause.TENANT_UNKNOWN, "`tocsin oauth set campus --tenant-id ID`"),
    Sample(ODD_SCOPE, "invalid_scope", "AADSTS70011: scope", Cause.SCOPE_WRONG, SCOPE_365),
    Sample(ODD_SCOPE, "invalid_scope", "AADSTS1002012: /.default", Cause.SCOPE_WRONG, SCOPE_365),
    Sample(
        PUBLIC,
        "invalid_scope",
        "AADSTS28002: scope",
        Cause.SCOPE_WRONG,
        "--scope https://outlook.office.com/SMTP.Send`",
    ),
    Sample(ODD_SCOPE, "invalid_resource", "AADSTS500011: principal", Cause.RESOURCE_MISSING, SCOPE_365),
    Sample(SECRET, "invalid_resource", "", Cause.RESOURCE_MISSING, "Exchange Online subscription"),
    Sample(SECRET, "invalid_grant", "AADSTS65001: no consent", Cause.CONSENT_MISSING, "SMTP.SendAsApp (application)"),
    Sample(PUBLIC, "invalid_grant", "AADSTS65001: no consent", Cause.CONSENT_MISSING, SIGN_IN),
    Sample(PUBLIC, "consent_required", "", Cause.CONSENT_MISSING, "SMTP.Send (delegated)"),
    Sample(PUBLIC, "invalid_grant", "AADSTS50105: not assigned", Cause.NOT_ASSIGNED, "Users and groups"),
    Sample(
        PUBLIC, "invalid_grant", "AADSTS50034: not found", Cause.NO_SUCH_MAILBOX, "profile set PROFILE --user ADDRESS`"
    ),
    Sample(PUBLIC, "invalid_grant", "AADSTS50057: disabled", Cause.USER_DISABLED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS50055: password expired", Cause.PASSWORD_EXPIRED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS50072: enroll", Cause.MFA_REQUIRED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS50076: multifactor", Cause.MFA_REQUIRED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS50078: expired", Cause.MFA_REQUIRED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS50079: enroll", Cause.MFA_REQUIRED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS53003: blocked", Cause.CONDITIONAL_ACCESS, "sign-in logs"),
    Sample(PUBLIC, "invalid_grant", "AADSTS50173: revoked", Cause.SIGN_IN_REVOKED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS70000: not valid", Cause.SIGN_IN_REVOKED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS700082: inactive", Cause.SIGN_IN_EXPIRED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS70043: sign-in frequency", Cause.SIGN_IN_EXPIRED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS700084: single page app", Cause.SIGN_IN_EXPIRED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS70008: inactivity", Cause.SIGN_IN_EXPIRED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS50058: nobody", Cause.SIGN_IN_EXPIRED, SIGN_IN),
    Sample(PUBLIC, "invalid_grant", "AADSTS987654321: something new", Cause.SIGN_IN_REVOKED, SIGN_IN),
    Sample(PUBLIC, "interaction_required", "", Cause.SIGN_IN_EXPIRED, SIGN_IN),
    Sample(SECRET, "unsupported_grant_type", "AADSTS70003: unsupported", Cause.GRANT_UNSUPPORTED, SHOW),
    Sample(SECRET, "invalid_client", "AADSTS987654321: new", Cause.UNKNOWN, "/error?code=987654321"),
    Sample(SECRET, "temporarily_unavailable", "AADSTS90033: transient", Cause.UNAVAILABLE),
    Sample(SECRET, "invalid_request", "AADSTS90024: transient", Cause.UNAVAILABLE),
    Sample(SECRET, "invalid_grant", "AADSTS50196: loop", Cause.THROTTLED),
)

GOOGLE = (
    Sample(SERVICE_ACCOUNT, "unauthorized_client", DELEGATED, Cause.DELEGATION_MISSING, DELEGATION),
    Sample(
        SERVICE_ACCOUNT, "access_denied", "Requested client not authorized.", Cause.DELEGATION_MISSING, "Admin console"
    ),
    Sample(GMAIL_SCOPE, "invalid_scope", "Invalid OAuth scope", Cause.SCOPE_WRONG, "--scope https://mail.google.com/`"),
    Sample(
        SERVICE_ACCOUNT,
        "invalid_grant",
        "Invalid email or User ID",
        Cause.NO_SUCH_MAILBOX,
        SET_USER,
    ),
    Sample(
        SERVICE_ACCOUNT,
        "invalid_grant",
        "Not a valid email.",
        Cause.NO_SUCH_MAILBOX,
        SET_USER,
    ),
    Sample(SERVICE_ACCOUNT, "invalid_request", 'Invalid impersonation "sub" field', Cause.NO_SUCH_MAILBOX, "--user"),
    Sample(GOOGLE_USER, "invalid_grant", "Account has been deleted", Cause.NO_SUCH_MAILBOX, SET_REFRESH_TOKEN),
    Sample(SERVICE_ACCOUNT, "invalid_grant", SHORT_LIVED, Cause.CLOCK_WRONG, "(NTP)"),
    Sample(SERVICE_ACCOUNT, "invalid_grant", "Invalid JWT Signature.", Cause.PRIVATE_KEY_WRONG, SET_SERVICE_ACCOUNT),
    Sample(SERVICE_ACCOUNT, "invalid_client", "The JWT is wrong.", Cause.PRIVATE_KEY_WRONG, SET_SERVICE_ACCOUNT),
    Sample(
        SERVICE_ACCOUNT, "invalid_grant", "Invalid grant: account not found", Cause.CLIENT_DISABLED, "--client-id ID`"
    ),
    Sample(SERVICE_ACCOUNT, "disabled_client", "The OAuth client was disabled.", Cause.CLIENT_DISABLED, "enabled"),
    Sample(GOOGLE_USER, "deleted_client", "The OAuth client was deleted.", Cause.CLIENT_DISABLED, "--client-id ID`"),
    Sample(SERVICE_ACCOUNT, "invalid_grant", "", Cause.ASSERTION_REFUSED, SET_SERVICE_ACCOUNT),
    Sample(
        GOOGLE_USER, "invalid_grant", "Token has been expired or revoked.", Cause.SIGN_IN_REVOKED, SET_REFRESH_TOKEN
    ),
    Sample(GOOGLE_USER, "invalid_grant", "Bad Request", Cause.SIGN_IN_REVOKED, SET_REFRESH_TOKEN),
    Sample(
        GOOGLE_USER, "invalid_grant", "reauth related error", Cause.SIGN_IN_EXPIRED, SET_REFRESH_TOKEN, "invalid_rapt"
    ),
    Sample(GOOGLE_USER, "unauthorized_client", "Unauthorized", Cause.SIGN_IN_OF_OTHER_CLIENT, SET_REFRESH_TOKEN),
    Sample(GOOGLE_USER, "invalid_client", "The OAuth client was not found.", Cause.CLIENT_UNKNOWN, "--client-id ID`"),
    Sample(GOOGLE_USER, "invalid_client", "Unauthorized", Cause.SECRET_WRONG, REPLACE_SECRET),
    Sample(GOOGLE_USER, "admin_policy_enforced", "", Cause.ADMIN_POLICY, "App access control"),
    Sample(GOOGLE_USER, "org_internal", "", Cause.ORG_INTERNAL, "External"),
    Sample(SERVICE_ACCOUNT, "rate_limit_exceeded", "Rate Limit Exceeded", Cause.THROTTLED),
    Sample(SERVICE_ACCOUNT, "internal_failure", "Backend Error", Cause.UNAVAILABLE),
)

STANDARD = (
    Sample(CUSTOM, "invalid_client", "", Cause.SECRET_WRONG, REPLACE_SECRET),
    Sample(CERTIFICATE, "invalid_client", "", Cause.CERTIFICATE_UNKNOWN, SET_CERTIFICATE),
    Sample(WORKLOAD, "invalid_client", "", Cause.FEDERATION_MISMATCH, CLIENT_ID),
    Sample(CUSTOM_KEY, "invalid_client", "", Cause.CLIENT_UNKNOWN, "`tocsin oauth set campus --client-id ID`"),
    Sample(CUSTOM_KEY, "invalid_grant", "the signature", Cause.ASSERTION_REFUSED, SET_KEY),
    Sample(CUSTOM_USER, "invalid_grant", "grant request is invalid", Cause.SIGN_IN_REVOKED, SIGN_IN),
    Sample(CUSTOM_USER, "consent_required", "", Cause.SIGN_IN_EXPIRED, SIGN_IN),
    Sample(CUSTOM, "invalid_scope", "", Cause.SCOPE_WRONG, "`tocsin oauth set campus --scope SCOPE`"),
    Sample(CUSTOM, "unauthorized_client", "", Cause.CLIENT_NOT_ALLOWED, CLIENT_ID),
    Sample(CUSTOM, "unsupported_grant_type", "", Cause.GRANT_UNSUPPORTED, SHOW),
    Sample(CUSTOM, "something_new", "", Cause.UNKNOWN, SHOW),
    Sample(CUSTOM, "server_error", "", Cause.UNAVAILABLE),
    Sample(CUSTOM_USER, "slow_down", "", Cause.THROTTLED),
)

SAMPLES = (*MICROSOFT, *GOOGLE, *STANDARD)


def name_of(sample: Sample) -> str:
    return f"{sample.profile.provider} {sample.profile.grant_type} {sample.error} {sample.description[:40]}"


def row_of(sample: Sample) -> Row:
    codes = (sample.error, *(word.rstrip(":") for word in sample.description.split() if word.startswith("AADSTS")))
    return find_row(sample.profile, codes, f"{sample.description} {sample.subtype}")


@pytest.mark.parametrize("sample", SAMPLES, ids=name_of)
def test_a_refusal_has_its_cause_and_names_the_exact_fix(sample: Sample):
    told = refused(sample.profile, sample.refusal, (), mailbox=MAILBOX)
    assert told.cause == sample.cause
    assert told.permanent is (sample.fix is not None)
    if sample.fix is None:
        assert told.fix is None
    else:
        assert sample.fix in str(told.fix)
    assert "{" not in str(told)
    assert sample.error in told.problem


@pytest.mark.parametrize("sample", SAMPLES, ids=name_of)
def test_the_cause_is_found_again_from_what_the_ledger_keeps(sample: Sample):
    told = refused(sample.profile, sample.refusal, (), mailbox=MAILBOX)
    assert told.code is not None
    if not sample.subtype:  # it is not kept, and only tells a revoked sign-in from one that has expired
        assert cause_of(sample.profile, told.code, told.problem) == sample.cause


def test_every_row_decides_about_an_answer_here():
    decided = [row_of(sample) for sample in SAMPLES]
    assert [row for row in ROWS if row not in decided] == []


def test_every_cause_is_explained_and_only_what_passes_has_no_fix():
    assert set(EXPLANATIONS) == set(Cause)
    assert {cause for cause, explanation in EXPLANATIONS.items() if explanation.fix is None} == PASSING


def test_every_row_has_its_source():
    assert all(row.source for row in ROWS)


def test_a_missing_delegation_names_the_number_the_scope_and_the_place():
    told = refused(SERVICE_ACCOUNT, Refusal("unauthorized_client", DELEGATED), (), mailbox=MAILBOX)
    assert "Manage domain-wide delegation" in str(told.fix)
    assert f"client ID {DELEGATION} with the scope https://mail.google.com/;" in str(told.fix)
    unknown = refused(replace(SERVICE_ACCOUNT, delegation_client_id=None), Refusal("unauthorized_client", ""), ())
    assert "unique id" in str(unknown.fix)


def test_microsofts_codes_are_known_at_a_custom_endpoint_too():
    told = refused(CUSTOM, Refusal("invalid_client", "AADSTS7000222: expired"), ())
    assert told.cause == Cause.SECRET_EXPIRED


def test_of_several_codes_the_one_that_decided_is_told():
    description = "AADSTS70002: Error validating credentials. AADSTS500133: Assertion is not within its time range."
    assert refused(CERTIFICATE, Refusal("invalid_client", description), ()).code == "AADSTS500133"


def test_googles_words_mean_nothing_special_elsewhere():
    told = refused(CUSTOM_KEY, Refusal("invalid_grant", "Not a valid email."), ())
    assert told.cause == Cause.ASSERTION_REFUSED


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (SECRET, "add SMTP.SendAsApp (application)"),
        (replace(SECRET, scope="HTTPS://outlook.office365.com/.default"), "Grant admin consent"),
        (
            replace(PUBLIC, scope="https://outlook.office.com/SMTP.Send offline_access"),
            "add SMTP.Send (delegated) of Office 365 Exchange Online, Grant admin consent. Then sign in again",
        ),
        (SERVICE_ACCOUNT, "Admin console"),
    ],
    ids=["application", "case", "person", "google"],
)
def test_the_usual_scope_is_not_recommended_to_whoever_has_it_but_the_permission_for_it(
    profile: OAuthProfile, words: str
):
    told = refused(profile, Refusal("invalid_scope", "AADSTS70011"), ())
    assert words in str(told.fix)
    assert "--scope" not in str(told.fix)
    missing = refused(profile, Refusal("invalid_resource", ""), ())
    assert "--scope" not in str(missing.fix)


@pytest.mark.parametrize(
    ("provider", "resource"),
    [
        ("microsoft365-gcc-high", "https://outlook.office365.us"),
        ("microsoft365-dod", "https://outlook-dod.office365.us"),
        ("microsoft365-china", "https://partner.outlook.cn"),
    ],
)
def test_a_national_cloud_is_recommended_its_own_scope(provider: str, resource: str):
    for profile, scope in ((SECRET, ".default"), (PUBLIC, "SMTP.Send")):
        told = refused(replace(profile, provider=provider), Refusal("invalid_scope", "AADSTS70011"), ())
        assert f"`tocsin oauth set campus --scope {resource}/{scope}`" in str(told.fix)


def test_a_device_code_profile_is_not_told_to_become_one():
    told = refused(PUBLIC, Refusal("invalid_client", "AADSTS700025: Client is public"), (), mailbox=MAILBOX)
    assert "--grant" not in str(told.fix)


def test_sending_profile_and_mailbox_are_filled_in_by_who_knows_them():
    told = refused(SERVICE_ACCOUNT, Refusal("invalid_grant", "Not a valid email."), (), mailbox=MAILBOX)
    assert "`tocsin profile set news --user ADDRESS`" in for_sending_profile(str(told.fix), "news", MAILBOX)
    told = refused(SECRET, Refusal("invalid_client", "AADSTS700025: Client is public"), ())
    assert SIGN_IN in for_sending_profile(str(told.fix), "news", MAILBOX)


def test_without_a_mailbox_the_fix_leaves_its_place_open():
    told = refused(PUBLIC, Refusal("invalid_grant", "AADSTS50173"), ())
    assert "`tocsin oauth acquire campus --user MAILBOX`" in str(told.fix)


@pytest.mark.parametrize(
    ("profile", "fix"),
    [
        (PUBLIC, f"Sign in: `tocsin oauth acquire campus --user {MAILBOX}`."),
        (
            GOOGLE_USER,
            f"Get a refresh token and store it: `tocsin oauth set campus --refresh-token-file F --user {MAILBOX}`.",
        ),
    ],
    ids=["device_code", "refresh_token"],
)
def test_a_missing_sign_in_names_the_command_of_its_grant(profile: OAuthProfile, fix: str):
    told = nobody_signed_in(profile, MAILBOX)
    assert (told.permanent, told.code, told.fix) == (True, "not_signed_in", fix)


def test_a_failure_that_was_no_refusal_has_no_known_cause():
    assert cause_of(SECRET, "", "OAuth profile campus: login.example did not answer within 8 s.") == Cause.UNKNOWN


def test_a_profiles_own_braces_stay_as_they_are():
    odd = replace(CUSTOM, client_id="{client}", scope="{0} {name.__class__}")
    assert "it is {0} {name.__class__}" in str(refused(odd, Refusal("invalid_scope", ""), ()).fix)


@given(
    error=st.text(), description=st.text(), subtype=st.text(), profile=st.sampled_from([SECRET, GOOGLE_USER, CUSTOM])
)
def test_any_refusal_has_a_cause(error: str, description: str, subtype: str, profile: OAuthProfile):
    answer = {"error": error, "error_description": description, "error_subtype": subtype}
    told = refused(profile, read_refusal(answer), (), mailbox=MAILBOX)
    assert told.cause in set(Cause)
    assert str(told).isprintable()
