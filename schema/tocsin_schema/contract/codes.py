"""The words by which a program can tell what is wrong with a part: `ContractError.code`."""

from __future__ import annotations

from enum import StrEnum


class ContractCode(StrEnum):
    """Every reason for which a part is refused. A code never changes its meaning."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NUL = "nul"
    """U+0000 somewhere; Postgres cannot store it."""
    LONE_SURROGATE = "lone_surrogate"
    """Half of a UTF-16 pair somewhere; it is not a character."""
    DUPLICATE_KEY = "duplicate_key"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    UNSUPPORTED_VERSION = "unsupported_version"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    WRONG_VALUE = "wrong_value"
    TOO_LONG = "too_long"
    TOO_MANY = "too_many"
    """Too many headers or attachments."""
    TOO_MANY_RECIPIENTS = "too_many_recipients"
    NO_RECIPIENTS = "no_recipients"
    BAD_ID = "bad_id"
    BAD_ADDRESS = "bad_address"
    """`reply_to` or `to` is not exactly one address. A recipient's bad address does not break its part."""
    BAD_HEADER = "bad_header"
    BAD_TIME = "bad_time"
    BAD_ATTACHMENT = "bad_attachment"
    BOTH_TEMPLATE_AND_CONTENT = "both_template_and_content"
    DATA_IN_SHARED = "data_in_shared"
    TO_IN_INDIVIDUAL = "to_in_individual"
    ATTACHMENTS_OUTSIDE_PART_1 = "attachments_outside_part_1"

    # What only intake can find, since it needs the ledger or the templates.
    UNKNOWN_PROFILE = "unknown_profile"
    UNKNOWN_TEMPLATE = "unknown_template"
    BAD_TEMPLATE = "bad_template"
    """A tag that is undefined or malformed."""
    RECIPIENT_TAG_IN_SHARED = "recipient_tag_in_shared"
    OTHER_CONTENT = "other_content"
    """The same id, or the same part number, came before with other content."""
