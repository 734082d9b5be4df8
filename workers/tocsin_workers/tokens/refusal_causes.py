"""Why a token endpoint refused: a table, looked through in order; the first row that fits decides.

Microsoft's rows go by AADSTS codes, whatever the profile's provider, since no other codes look like these. Google's
go by the words of the description, because one OAuth error of Google's stands for many causes. What is left is
told by the OAuth error alone. What a cause means and how to mend it stands in `refusal_fixes`.

The sources named beside the rows:

    MS-ERR    learn.microsoft.com/entra/identity-platform/reference-error-codes
    MS-WIF    observed: github.com/Azure/login issues 482, 515 and 517; Azure/azure-workload-identity issues 340, 1200
    MS-OBS    observed: issues of AzureAD's MSAL repositories (700024, 70002 with 50012, 1002012, 900023, 500014)
    MS-DEV    learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code
    MS-MI     learn.microsoft.com, "How to use managed identities on a VM to acquire an access token" and "... for App
              Service"
    G-SA      developers.google.com/identity/protocols/oauth2/service-account, "JWT error codes" (recalled)
    G-OAUTH   developers.google.com/identity/protocols/oauth2, "Refresh token expiration" (recalled)
    G-GAM     observed: OAUTH2_TOKEN_ERRORS of github.com/GAM-team/GAM
    G-OBS     observed: googleapis/google-cloud-php issue 3622, google-api-ruby-client issue 720
    G-AUTH    google-auth's own list of errors to retry, and its reauth module
    RFC nnnn  www.rfc-editor.org
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tocsin_schema.ledger.oauth_providers import MICROSOFT_CLOUDS, SIGN_IN_GRANTS, GrantType, OAuthProvider

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile


class Cause(StrEnum):
    """What is behind a refusal."""

    SECRET_WRONG = "secret_wrong"  # noqa: S105  # the name of a cause
    SECRET_EXPIRED = "secret_expired"  # noqa: S105  # the name of a cause
    SECRET_UNWANTED = "secret_unwanted"  # noqa: S105  # the name of a cause
    CERTIFICATE_UNKNOWN = "certificate_unknown"
    PRIVATE_KEY_WRONG = "private_key_wrong"
    ASSERTION_REFUSED = "assertion_refused"
    FEDERATION_MISMATCH = "federation_mismatch"
    FEDERATED_TOKEN_EXPIRED = "federated_token_expired"  # noqa: S105  # the name of a cause
    CLOCK_WRONG = "clock_wrong"
    CLIENT_UNKNOWN = "client_unknown"
    CLIENT_DISABLED = "client_disabled"
    CLIENT_NOT_ALLOWED = "client_not_allowed"
    PUBLIC_CLIENT_OFF = "public_client_off"
    TENANT_UNKNOWN = "tenant_unknown"
    WRONG_CLOUD = "wrong_cloud"
    SCOPE_WRONG = "scope_wrong"
    RESOURCE_MISSING = "resource_missing"
    CONSENT_MISSING = "consent_missing"
    DELEGATION_MISSING = "delegation_missing"
    NOT_ASSIGNED = "not_assigned"
    NO_IDENTITY = "no_identity"
    NO_SUCH_MAILBOX = "no_such_mailbox"
    USER_DISABLED = "user_disabled"
    PASSWORD_EXPIRED = "password_expired"  # noqa: S105  # the name of a cause
    SIGN_IN_REVOKED = "sign_in_revoked"
    SIGN_IN_EXPIRED = "sign_in_expired"
    SIGN_IN_OF_OTHER_CLIENT = "sign_in_of_other_client"
    MFA_REQUIRED = "mfa_required"
    CONDITIONAL_ACCESS = "conditional_access"
    ADMIN_POLICY = "admin_policy"
    ORG_INTERNAL = "org_internal"
    GRANT_UNSUPPORTED = "grant_unsupported"
    UNAVAILABLE = "unavailable"
    THROTTLED = "throttled"
    UNKNOWN = "unknown"


PASSING = frozenset({Cause.UNAVAILABLE, Cause.THROTTLED})
"""By these the endpoint blames itself or the moment: asking again helps, and nothing else does."""


class Proof(StrEnum):
    """What a profile proves itself with to the endpoint."""

    SECRET = "secret"  # noqa: S105  # the name of a kind
    CERTIFICATE = "certificate"
    KEY = "key"
    """A private key that signs assertions in a mailbox's name."""
    FEDERATION = "federation"
    """A token that the platform projects into a file."""
    PLATFORM = "platform"
    """Nothing of its own: Azure vouches for the machine."""
    NONE = "none"
    """Nothing: a public client."""


def proof_of(profile: OAuthProfile) -> Proof:
    """Tell what the profile's credential is; a refresh token is not one, but what it is for."""
    match profile.grant_type:
        case GrantType.WORKLOAD_IDENTITY:
            return Proof.FEDERATION
        case GrantType.MANAGED_IDENTITY:
            return Proof.PLATFORM
        case GrantType.JWT_BEARER if profile.provider == OAuthProvider.GOOGLE or profile.secret_set_at is None:
            return Proof.KEY
        case _ if profile.certificate_pem is not None:
            return Proof.CERTIFICATE
        case GrantType.CLIENT_CREDENTIALS:
            return Proof.SECRET
        case _:
            return Proof.NONE if profile.secret_set_at is None else Proof.SECRET


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table; every given condition has to hold.

    `codes` are OAuth errors or AADSTS codes, `text` is searched for in description and subtype, `source` says where
    the row is written.
    """

    cause: Cause
    source: str
    codes: frozenset[str] | None = None
    text: re.Pattern[str] | None = None
    providers: frozenset[str] | None = None
    grants: frozenset[str] | None = None
    proofs: frozenset[Proof] | None = None


def find_row(profile: OAuthProfile, codes: Iterable[str], text: str) -> Row:
    """Give the row that decides about a refusal with these codes (OAuth's and AADSTS's) and this text."""
    told, proof = frozenset(codes), proof_of(profile)
    return next(
        row
        for row in ROWS
        if (row.codes is None or not row.codes.isdisjoint(told))
        and (row.text is None or row.text.search(text) is not None)
        and (row.providers is None or profile.provider in row.providers)
        and (row.grants is None or profile.grant_type in row.grants)
        and (row.proofs is None or proof in row.proofs)
    )


def _aadsts(*numbers: int) -> frozenset[str]:
    return frozenset(f"AADSTS{number}" for number in numbers)


def _errors(*errors: str) -> frozenset[str]:
    return frozenset(errors)


def _text(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_GOOGLE = frozenset({OAuthProvider.GOOGLE})
_JWT = frozenset({GrantType.JWT_BEARER})
_FEDERATED = frozenset({Proof.FEDERATION})

MICROSOFT_ROWS = (
    # Azure's own endpoint beside the machine.
    Row(
        Cause.NO_IDENTITY,
        "MS-MI",
        None,
        _text(r"identity not found|no managed identity|multiple user assigned identities"),
        grants=frozenset({GrantType.MANAGED_IDENTITY}),
    ),
    # The moment.
    Row(Cause.UNAVAILABLE, "MS-ERR", _aadsts(50033, 50087, 90006, 90012, 90024, 90033, 90090, 90091)),
    Row(Cause.THROTTLED, "MS-ERR", _aadsts(50196, 90055)),
    # An assertion that comes at the wrong time carries 50012 in some answers, and 70002 before it.
    Row(Cause.FEDERATED_TOKEN_EXPIRED, "MS-OBS", _aadsts(700024, 500133), proofs=_FEDERATED),
    Row(Cause.CLOCK_WRONG, "MS-OBS; MS-ERR", _aadsts(700024, 500133)),
    Row(Cause.CLOCK_WRONG, "MS-OBS", _aadsts(50012, 50013), _text(r"not within its valid time range")),
    # What proves the application.
    Row(Cause.SECRET_EXPIRED, "MS-ERR", _aadsts(7000222)),
    Row(Cause.SECRET_WRONG, "MS-ERR", _aadsts(7000215)),
    Row(Cause.PUBLIC_CLIENT_OFF, "MS-ERR; MS-DEV", _aadsts(7000218)),
    Row(Cause.SECRET_UNWANTED, "MS-ERR", _aadsts(700025)),
    Row(
        Cause.FEDERATION_MISMATCH,
        "MS-WIF; 700229: MS-ERR",
        _aadsts(70021, 700211, 700212, 700213, 7002137, 7002138, 700229),
    ),
    Row(Cause.FEDERATION_MISMATCH, "MS-ERR", _aadsts(700027, 50013, 50027, 50048, 900384), proofs=_FEDERATED),
    Row(
        Cause.CERTIFICATE_UNKNOWN,
        "MS-ERR",
        _aadsts(700027, 700030, 50003, 50006, 50012, 50013, 50027, 50048, 900384),
    ),
    # The application and its tenant.
    Row(Cause.CLIENT_UNKNOWN, "MS-ERR", _aadsts(700016, 700011)),
    Row(Cause.CLIENT_DISABLED, "MS-ERR", _aadsts(7000112, 70001, 1000031)),
    Row(Cause.WRONG_CLOUD, "MS-ERR", _aadsts(90038, 900382, 900432)),
    Row(Cause.TENANT_UNKNOWN, "MS-ERR; 900023: MS-OBS", _aadsts(90002, 900023, 50059, 50128, 90019, 50194, 9001023)),
    Row(Cause.RESOURCE_MISSING, "MS-ERR; 500014: MS-OBS", _aadsts(500011, 500014, 50001, 650052, 650054)),
    Row(Cause.SCOPE_WRONG, "MS-ERR; 1002012: MS-OBS", _aadsts(70011, 1002012, 28002, 28003, 700022, 700023)),
    Row(Cause.CONSENT_MISSING, "MS-ERR", _aadsts(65001, 65004, 65005, 650056, 650057, 90008, 90094, 90095)),
    # The person who signed in.
    Row(Cause.NOT_ASSIGNED, "MS-ERR", _aadsts(50105)),
    Row(Cause.NO_SUCH_MAILBOX, "MS-ERR", _aadsts(50034, 51004, 50014, 50020, 16000, 16003, 90072)),
    Row(Cause.USER_DISABLED, "MS-ERR", _aadsts(50057, 50053)),
    Row(Cause.PASSWORD_EXPIRED, "MS-ERR", _aadsts(50055, 50144, 50135)),
    Row(Cause.MFA_REQUIRED, "MS-ERR", _aadsts(50072, 50074, 50076, 50078, 50079, 50158, 53004, 53010)),
    Row(
        Cause.CONDITIONAL_ACCESS,
        "MS-ERR",
        _aadsts(53000, 53001, 53002, 53003, 53011, 530032, 530034, 530035, 50005, 50097, 50129, 50131, 50155),
    ),
    Row(Cause.SIGN_IN_REVOKED, "MS-ERR", _aadsts(50173, 50132, 50133)),
    Row(Cause.SIGN_IN_EXPIRED, "MS-ERR", _aadsts(700082, 70008, 700084, 70043, 50089, 50085, 50058, 700020)),
    Row(Cause.SIGN_IN_REVOKED, "MS-ERR (an invalid refresh token)", _aadsts(70000), grants=SIGN_IN_GRANTS),
    Row(Cause.GRANT_UNSUPPORTED, "MS-ERR", _aadsts(70003)),
    # It comes together with a code that knows more, which the rows above have tried.
    Row(Cause.CERTIFICATE_UNKNOWN, "MS-ERR", _aadsts(70002), proofs=frozenset({Proof.CERTIFICATE})),
    Row(Cause.SECRET_WRONG, "MS-ERR", _aadsts(70002)),
)

GOOGLE_ROWS = (
    Row(Cause.THROTTLED, "G-GAM", None, _text(r"rate.?limit|quota.?exceeded|too many"), _GOOGLE),
    Row(Cause.UNAVAILABLE, "G-AUTH; G-GAM", _errors("internal_failure"), providers=_GOOGLE),
    Row(
        Cause.CLOCK_WRONG,
        "G-SA",
        _errors("invalid_grant"),
        _text(r"short-lived token|reasonable timeframe|\biat\b|\bexp\b|used too early|clock"),
        _GOOGLE,
        _JWT,
    ),
    Row(
        Cause.PRIVATE_KEY_WRONG,
        "G-SA; G-GAM (no valid verifier)",
        _errors("invalid_grant"),
        _text(r"invalid jwt signature|no valid verifier"),
        _GOOGLE,
    ),
    Row(
        Cause.CLIENT_DISABLED,
        "G-OBS",
        _errors("invalid_grant"),
        _text(r"account not found|robot is disabled"),
        _GOOGLE,
        _JWT,
    ),
    Row(Cause.CLIENT_DISABLED, "G-SA", _errors("disabled_client", "deleted_client"), providers=_GOOGLE),
    Row(
        Cause.NO_SUCH_MAILBOX,
        "G-SA (not a valid email); G-GAM",
        _errors("invalid_grant", "invalid_request"),
        _text(r"(not a valid|invalid) email|has been deleted|account not found|invalid impersonation"),
        _GOOGLE,
    ),
    Row(Cause.DELEGATION_MISSING, "G-SA; G-GAM", _errors("unauthorized_client", "access_denied"), None, _GOOGLE, _JWT),
    Row(Cause.SCOPE_WRONG, "G-SA", _errors("invalid_scope"), providers=_GOOGLE),
    Row(Cause.ORG_INTERNAL, "G-SA", _errors("org_internal"), providers=_GOOGLE),
    Row(Cause.ADMIN_POLICY, "G-SA", _errors("admin_policy_enforced", "access_denied"), providers=_GOOGLE),
    Row(Cause.SIGN_IN_EXPIRED, "G-AUTH; G-GAM", _errors("invalid_grant"), _text(r"rapt"), _GOOGLE, SIGN_IN_GRANTS),
    Row(
        Cause.SIGN_IN_OF_OTHER_CLIENT,
        "recalled: a refresh token that another client was given",
        _errors("unauthorized_client"),
        None,
        _GOOGLE,
        SIGN_IN_GRANTS,
    ),
    Row(
        Cause.SIGN_IN_REVOKED,
        "G-OAUTH; G-GAM (Token has been expired or revoked; Bad Request)",
        _errors("invalid_grant"),
        None,
        _GOOGLE,
        SIGN_IN_GRANTS,
    ),
    Row(Cause.CLIENT_UNKNOWN, "G-SA; recalled", _errors("invalid_client"), _text(r"not found|no application"), _GOOGLE),
)

STANDARD_ROWS = (
    Row(Cause.UNAVAILABLE, "RFC 6749 section 4.1.2.1", _errors("temporarily_unavailable", "server_error")),
    Row(Cause.THROTTLED, "RFC 8628 section 3.5", _errors("slow_down")),
    Row(Cause.SIGN_IN_REVOKED, "RFC 6749 section 5.2", _errors("invalid_grant"), grants=SIGN_IN_GRANTS),
    Row(Cause.CONSENT_MISSING, "MS-ERR", _errors("consent_required"), providers=MICROSOFT_CLOUDS),
    Row(
        Cause.SIGN_IN_EXPIRED,
        "OpenID Connect Core section 3.1.2.6; MS-ERR",
        _errors("interaction_required", "login_required", "consent_required"),
        grants=SIGN_IN_GRANTS,
    ),
    Row(Cause.TENANT_UNKNOWN, "observed at Microsoft's endpoint", _errors("invalid_tenant")),
    Row(Cause.SCOPE_WRONG, "RFC 6749 section 5.2; RFC 8707 section 2", _errors("invalid_scope", "invalid_target")),
    Row(Cause.RESOURCE_MISSING, "MS-ERR", _errors("invalid_resource")),
    Row(Cause.GRANT_UNSUPPORTED, "RFC 6749 section 5.2", _errors("unsupported_grant_type")),
    # An AADSTS code that the table lacks says more than the OAuth error does.
    Row(Cause.UNKNOWN, "MS-ERR", None, _text(r"AADSTS\d")),
    Row(Cause.ASSERTION_REFUSED, "RFC 7523 section 3.1", _errors("invalid_grant"), grants=_JWT),
    Row(
        Cause.SECRET_WRONG,
        "RFC 6749 section 5.2",
        _errors("invalid_client"),
        proofs=frozenset({Proof.SECRET}),
    ),
    Row(
        Cause.CERTIFICATE_UNKNOWN,
        "RFC 6749 section 5.2",
        _errors("invalid_client"),
        proofs=frozenset({Proof.CERTIFICATE}),
    ),
    Row(Cause.PRIVATE_KEY_WRONG, "G-SA", _errors("invalid_client"), providers=_GOOGLE, grants=_JWT),
    Row(Cause.FEDERATION_MISMATCH, "RFC 6749 section 5.2", _errors("invalid_client"), proofs=_FEDERATED),
    Row(Cause.CLIENT_UNKNOWN, "RFC 6749 section 5.2", _errors("invalid_client")),
    Row(Cause.CLIENT_NOT_ALLOWED, "RFC 6749 section 5.2", _errors("unauthorized_client")),
    Row(Cause.UNKNOWN, "everything else"),
)

ROWS: tuple[Row, ...] = (*MICROSOFT_ROWS, *GOOGLE_ROWS, *STANDARD_ROWS)
"""Every row, in the order in which they are tried. The last one fits always."""
