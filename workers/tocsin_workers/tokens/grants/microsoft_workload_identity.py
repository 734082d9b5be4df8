"""Microsoft 365: an application's own token for one that the platform projects into a file.

Workload identity federation: Kubernetes (or another platform) vouches for the pod with a token that it keeps renewing
in a file, and Microsoft takes that in place of a secret (RFC 7523 section 2.2).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tocsin_schema.errors import TokenError
from tocsin_schema.ledger.oauth_providers import DEFAULT_TOKEN_FILE
from tocsin_workers.tokens.bounded_http import EndpointSession, with_session
from tocsin_workers.tokens.grants.msal_client import answer_to, confidential_application, scopes_of
from tocsin_workers.tokens.grants.seam import GrantSecrets, ObtainedToken, read_token_answer

if TYPE_CHECKING:
    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

MAX_TOKEN_FILE_BYTES = 64 * 1024
#: RFC 7515 section 7.1, each part base64url.
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class MicrosoftWorkloadIdentity:
    """An application's own token: one for all mailboxes that it was given access to."""

    per_mailbox = False
    lives_on_sign_in = False

    async def request(
        self, profile: OAuthProfile, secrets: GrantSecrets, subject: str, *, deadline_seconds: float
    ) -> ObtainedToken:
        """Ask once, with what stands in the token file now. Raises TokenError."""
        del subject  # an application's token has none
        scopes = scopes_of(profile)

        def ask(session: EndpointSession) -> ObtainedToken:
            assertion = read_token_file(profile)

            def acquire() -> object:
                credential: dict[str, object] = {"client_assertion": lambda: assertion}
                return confidential_application(profile, credential, session).acquire_token_for_client(scopes)

            return read_token_answer(profile, answer_to(profile, session, acquire, secrets, hidden=assertion))

        return await with_session(profile, ask, deadline_seconds=deadline_seconds)


def read_token_file(profile: OAuthProfile) -> str:
    """Give the token that the platform projects; blocks.

    Raises TokenError where there is none, so that nothing else that a file may hold is ever sent. None is permanent:
    another worker may have the file, and it comes without a change to the profile.
    """
    path = Path(profile.token_file or DEFAULT_TOKEN_FILE)
    try:
        # A pipe or a device would block for ever, or never end.
        if not path.is_file():
            raise _no_token(profile, path, "is missing" if not path.exists() else "is not a file")
        with path.open("rb") as file:
            content = file.read(MAX_TOKEN_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "its path is malformed"
        raise _no_token(profile, path, f"cannot be read: {reason}") from None
    token = content.decode("ascii", errors="replace").strip()
    if len(content) > MAX_TOKEN_FILE_BYTES or not _JWT.fullmatch(token):
        raise _no_token(profile, path, "does not hold a JWT")
    return token


def _no_token(profile: OAuthProfile, path: Path, what: str) -> TokenError:
    return TokenError(
        f"OAuth profile {profile.name}: the token file {path} {what}.",
        fix=(
            'On Kubernetes, label the worker\'s pod `azure.workload.identity/use: "true"` and annotate its service'
            " account with the client id; a token elsewhere: "
            f"`tocsin oauth set {profile.name} --token-file FILE`."
        ),
    )
