"""What the Microsoft grants share: MSAL as it is used here, over our bounded session and with nothing kept.

MSAL finds the endpoints by a discovery request to the profile's own authority at each use. What it raises besides
our own errors means that the answer made no sense.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import msal  # pyright: ignore[reportMissingTypeStubs]  # MSAL has no type information

from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.endpoint import token_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.bounded_http import EndpointSession
    from tocsin_workers.tokens.grants.seam import GrantSecrets

_ENDPOINT_PATH = "/oauth2/v2.0/token"
#: MSAL adds these to a person's scopes by itself, and takes none of them from us.
RESERVED_SCOPES = frozenset({"openid", "profile", "offline_access"})

#: A client secret, a private key with its certificate, or what gives an assertion.
Credential = str | dict[str, object]


class ForgetfulCache(msal.TokenCache):
    """Keeps nothing: MSAL would hand back the token that a mail server has just refused.

    MSAL's own also looks into what came to find its owner, logs it, and chokes on what it does not expect.
    """

    def add(self, event: object, now: object = None) -> None:
        """Do nothing."""


class SignInApplication(Protocol):
    """What we use of each of MSAL's applications."""

    def acquire_token_by_refresh_token(self, refresh_token: str, scopes: list[str]) -> object:
        """Ask for a token in the name of whoever signed in."""
        ...


class ConfidentialApplication(SignInApplication, Protocol):
    """What we use of the application that proves itself."""

    def acquire_token_for_client(self, scopes: list[str]) -> object:
        """Ask for the application's own token."""
        ...


class PublicApplication(SignInApplication, Protocol):
    """What we use of the application that does not."""

    def initiate_device_flow(self, scopes: list[str]) -> object:
        """Ask for a device code."""
        ...

    def acquire_token_by_device_flow(
        self, flow: dict[str, object], *, exit_condition: Callable[[object], bool]
    ) -> object:
        """Ask for tokens with a device code, again and again until the condition holds."""
        ...


def confidential_application(
    profile: OAuthProfile, credential: Credential, session: EndpointSession
) -> ConfidentialApplication:
    """Make an application that proves itself, which asks for its endpoints. Raises TokenError, and as `call`."""
    # The profile says whom to trust; Microsoft's list of clouds is not asked, and no region is guessed.
    application = msal.ConfidentialClientApplication(
        client_id_of(profile),
        client_credential=credential,
        authority=authority_of(profile),
        token_cache=ForgetfulCache(),
        http_client=session,
        instance_discovery=False,
        azure_region=False,
    )
    return cast("ConfidentialApplication", application)


def public_application(profile: OAuthProfile, session: EndpointSession) -> PublicApplication:
    """Make an application without a secret, which asks for its endpoints. Raises TokenError, and as `call`."""
    application = msal.PublicClientApplication(
        client_id_of(profile),
        authority=authority_of(profile),
        token_cache=ForgetfulCache(),
        http_client=session,
        instance_discovery=False,
    )
    return cast("PublicApplication", application)


def call(ask: Callable[[], object]) -> Mapping[str, object] | None:
    """Run what MSAL does and give its answer, None where it makes no sense. The session's TokenErrors pass."""
    try:
        answer = ask()
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, AssertionError):
        return None
    return cast("Mapping[str, object]", answer) if isinstance(answer, dict) else None


def answer_to(
    profile: OAuthProfile,
    session: EndpointSession,
    ask: Callable[[], object],
    secrets: GrantSecrets,
    *,
    hidden: str = "",
    mailbox: str | None = None,
) -> Mapping[str, object]:
    """Run what MSAL does and give the success answer. Raises TokenError where there is none.

    `hidden` is what else must not show; `mailbox` is whom the token is for, where it is for one.
    """
    answer = call(ask)
    if session.refusal is not None:
        raise refusals.refused(profile, session.refusal, (*secrets.texts(), hidden), mailbox=mailbox)
    if answer is None:
        raise refusals.unusable_token(profile, "cannot be read out of its answer")
    return answer


def authority_of(profile: OAuthProfile) -> str:
    """Give what MSAL takes as authority. Raises TokenError where the token endpoint is not of Microsoft's form."""
    endpoint = token_endpoint(profile)
    if not endpoint.endswith(_ENDPOINT_PATH):
        raise refusals.misconfigured(
            profile,
            f"Microsoft's token endpoint ends in {_ENDPOINT_PATH}, and this one does not",
            f"set {profile.name} --token-endpoint URL",
        )
    return endpoint.removesuffix(_ENDPOINT_PATH)


def client_id_of(profile: OAuthProfile) -> str:
    """Give the application's id. Raises TokenError where there is none."""
    if not profile.client_id:
        raise refusals.misconfigured(profile, "it has no client id", f"set {profile.name} --client-id ID")
    return profile.client_id


def scopes_of(profile: OAuthProfile) -> list[str]:
    """Give the profile's scopes without those that MSAL adds. Raises TokenError where none is left."""
    scopes = [scope for scope in (profile.scope or "").split() if scope not in RESERVED_SCOPES]
    if not scopes:
        raise refusals.misconfigured(profile, "it has no scope", f"set {profile.name} --scope SCOPE")
    return scopes
