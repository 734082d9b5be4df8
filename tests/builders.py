"""Values for tests, complete and plausible, of which a test names only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tocsin_schema.ledger.oauth_profiles import OAuthDefaults, OAuthProfile
from tocsin_schema.ledger.sending import SenderProfile

if TYPE_CHECKING:
    from collections.abc import Mapping

TENANT = "11111111-2222-4333-8444-555555555555"
CLIENT_ID = "99999999-8888-4777-8666-555555555555"
THEN = datetime(2026, 11, 21, 12, tzinfo=UTC)


def an_oauth_profile(**fields: Any) -> OAuthProfile:
    """Give a Microsoft 365 profile with a client secret, but for the given fields."""
    usual: Mapping[str, Any] = {
        "id": UUID(int=1),
        "name": "campus",
        "provider": "microsoft365",
        "grant_type": "client_credentials",
        "token_endpoint": "https://login.microsoftonline.com/{tenantId}/oauth2/v2.0/token",
        "scope": "https://outlook.office365.com/.default",
        "tenant_id": TENANT,
        "client_id": CLIENT_ID,
        "ca_pem": None,
        "client_auth": "client_secret_post",
        "device_endpoint": None,
        "certificate_pem": None,
        "key_id": None,
        "delegation_client_id": None,
        "token_file": None,
        "secret_set_at": THEN,
        "secret_expires_at": None,
        "private_key_set_at": None,
        "certificate_expires_at": None,
        "created_at": THEN,
        "updated_at": THEN,
    }
    return OAuthProfile(**{**usual, **fields})


def oauth_defaults(provider: str, **fields: Any) -> OAuthDefaults:
    """Give a provider's template, of which nothing is known but the given fields."""
    usual: Mapping[str, Any] = {
        "provider": provider,
        "title": provider,
        "grant_type": "client_credentials",
        "grants": ["client_credentials"],
        "token_endpoint": None,
        "scope": None,
        "delegated_scope": None,
        "wants_tenant": False,
        "guid_ids": False,
        "sending_defaults": provider,
    }
    return OAuthDefaults(**{**usual, **fields})


def a_sender_profile(**fields: Any) -> SenderProfile:
    """Give a sending profile without limits and log-in, as a slice reads it, but for the given fields."""
    usual: Mapping[str, Any] = {
        "id": UUID(int=1),
        "name": "campus",
        "host": "smtp.campus.example",
        "port": 587,
        "tls": "starttls",
        "auth": "none",
        "from_address": "news@campus.example",
        "oauth_profile_id": None,
        "login": "news@campus.example",
        "sealed_password": None,
        "ca_pem": None,
        "allow_plaintext_auth": False,
        "batch_size": 50,
        "copies": "reference",
        "mailbox_id": 1,
        "updated_at": THEN,
        "paused_reason": None,
        "probe_is_due": False,
        "probes": 0,
        "resumed_at": None,
        "read_at": THEN,
        "provider": "custom",
        "connections": None,
        "messages_per_minute": None,
        "recipients_per_day": None,
        "parked_until": None,
        "parked_reason": None,
    }
    return SenderProfile(**{**usual, **fields})
