"""Microsoft 365: the token of an identity that Azure gives its own machines, from an endpoint beside them.

No secret is needed; the endpoint is the machine's, and the profile's token endpoint is not asked. MSAL finds it by
the environment: App Service's (also that of Functions, Container Apps and Automation), else the metadata service of
virtual machines (IMDS), which other clouds and Kubernetes add-ons imitate under another host. Both speak plain http.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Protocol, cast

import httpx
import msal  # pyright: ignore[reportMissingTypeStubs]  # MSAL has no type information
from msal import managed_identity as sources  # pyright: ignore[reportMissingTypeStubs]  # the same

from tocsin_schema.errors import TokenError
from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.bounded_http import EndpointRules, EndpointSession, with_session
from tocsin_workers.tokens.grants.msal_client import ForgetfulCache, call, scopes_of
from tocsin_workers.tokens.grants.seam import GrantSecrets, ObtainedToken, read_token_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

_DEFAULT_SCOPE = "/.default"
#: This machine, its link and its private networks (RFC 6890).
_NEARBY = tuple(
    ip_network(network)
    for network in (
        "127.0.0.0/8",
        "169.254.0.0/16",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fe80::/10",
        "fc00::/7",
    )
)
#: What the endpoints say where the machine has no such identity, or several.
_NO_IDENTITY = ("identity not found", "no managed identity found", "multiple user assigned identities")
#: Where MSAL sees a machine whose protocol we do not speak: Arc's wants a file of root's, Service Fabric's a
#: connection of MSAL's own, without our bounds.
_NOT_SPOKEN = {
    sources.SERVICE_FABRIC: "Service Fabric",
    sources.MACHINE_LEARNING: "Azure Machine Learning",
    sources.AZURE_ARC: "Azure Arc",
    sources.CLOUD_SHELL: "Azure Cloud Shell",
}


def may_be_asked(url: httpx.URL) -> bool:
    """Whether a token may be asked for at an address: over https anywhere, over http only at an address nearby.

    A name other than localhost could lead anywhere, so it must be an IP address.
    """
    if url.scheme == "https":
        return bool(url.host)
    if url.scheme != "http":
        return False
    if url.host == "localhost":
        return True
    try:
        address = ip_address(url.host)
    except ValueError:
        return False
    return any(address in network for network in _NEARBY)


#: 404 and 410 are IMDS's while it is renewed (Microsoft: how to use managed identities on a VM to acquire a token).
IDENTITY_RULES = EndpointRules(
    admits=may_be_asked,
    otherwise="the environment names an address for it that is neither https nor on this machine's own networks",
    passing=frozenset(
        {
            httpx.codes.NOT_FOUND,
            httpx.codes.REQUEST_TIMEOUT,
            httpx.codes.GONE,
            httpx.codes.TOO_MANY_REQUESTS,
        }
    ),
)


class _Client(Protocol):
    """What we use of MSAL's client."""

    def acquire_token_for_client(self, *, resource: str) -> object: ...


class MicrosoftManagedIdentity:
    """A machine's own token, or that of the identity that `client_id` names: one for all mailboxes."""

    per_mailbox = False
    lives_on_sign_in = False

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once. Raises TokenError."""
        del secrets, subject  # a machine has neither
        resource = resource_of(profile)

        def ask(session: EndpointSession) -> ObtainedToken:
            _refuse_unspoken(profile)
            return _read(
                profile, session, call(lambda: _client(profile, session).acquire_token_for_client(resource=resource))
            )

        try:
            return await with_session(profile, ask, deadline_seconds=deadline_seconds, rules=IDENTITY_RULES)
        except TokenError as error:
            if error.fix is None:
                error.fix = "Where this is not one of Azure's own machines, choose another grant."
            raise


def resource_of(profile: OAuthProfile) -> str:
    """Give what v1 endpoints call the scope. Raises TokenError where the profile does not have exactly one."""
    scopes = scopes_of(profile)
    if len(scopes) != 1:
        raise refusals.misconfigured(
            profile, "a managed identity's token has exactly one scope", f"set {profile.name} --scope SCOPE"
        )
    return scopes[0].removesuffix(_DEFAULT_SCOPE)


def _refuse_unspoken(profile: OAuthProfile) -> None:
    unspoken = _NOT_SPOKEN.get(sources.get_managed_identity_source())
    if unspoken is not None:
        raise TokenError(
            f"OAuth profile {profile.name}: this machine's managed identity is {unspoken}'s, which Tocsin cannot use.",
            fix="Use a certificate or workload identity there, or run the workers on a VM, App Service or AKS.",
        )


def _client(profile: OAuthProfile, session: EndpointSession) -> _Client:
    identity = (
        msal.UserAssignedManagedIdentity(client_id=profile.client_id)
        if profile.client_id
        else msal.SystemAssignedManagedIdentity()
    )
    client = msal.ManagedIdentityClient(identity, http_client=session, token_cache=ForgetfulCache())
    return cast("_Client", client)


def _read(profile: OAuthProfile, session: EndpointSession, answer: Mapping[str, object] | None) -> ObtainedToken:
    """Read what MSAL gave. App Service's refusals have a form of their own, whose words only MSAL's answer tells."""
    refusal, told = session.refusal, refusals.read_refusal(answer or {})
    if refusal is not None and not refusal.description:
        refusal = replace(refusal, description=told.description)
    if refusal is not None:
        error = refusals.refused(profile, refusal, ())
        if any(text in refusal.description.lower() for text in _NO_IDENTITY):
            error.fix = _identity_fix(profile)
        raise error
    if answer is None:
        raise refusals.unusable_token(profile, "cannot be read out of its answer")
    return read_token_answer(profile, answer)


def _identity_fix(profile: OAuthProfile) -> str:
    option = f"`tocsin oauth set {profile.name} --client-id ID`"
    if profile.client_id:
        return f"Assign the identity with that client id to this machine in Azure, or name another: {option}."
    return f"Give this machine a system-assigned identity in Azure, or name a user-assigned one: {option}."
