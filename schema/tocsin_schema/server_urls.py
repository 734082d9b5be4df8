"""Whether a server's URL says plainly where its password ends.

Where a password holds a raw `/` or `@`, libpq and pika take a piece of it for the host, its port, or the database, and
messages show those.
"""

from __future__ import annotations

import re
from typing import Final

HOW_TO_WRITE_PASSWORDS: Final = "in a password write % as %25, / as %2F, @ as %40, ? as %3F and # as %23"

_POSTGRES_SCHEMES: Final = ("postgresql://", "postgres://")
#: As libpq reads it (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS): credentials
#: end at the first `@` where no `/` comes before it. Behind them an `@` stands in the query only.
_POSTGRES: Final = re.compile(
    r"""\w+://(?: [^@/]*@ [^@?]* (?:\?.*)?  # user:password@host,host/database?query
              | [^@/?]* / [^@?]* (?:\?.*)?  # host/database?query, or /database?query
              | [^@]* )""",
    re.VERBOSE | re.DOTALL,
)
#: As pika reads it (RFC 3986 section 3.2): credentials and host end at the first `/`, `?` or `#`, and the credentials
#: at the last `@` before it.
_AMQP: Final = re.compile(r"\w+://(?:[^/?#]*@[^@?#]*(?:[?#].*)?|[^@]*)", re.DOTALL)


def is_plain_postgres_url(conninfo: str) -> bool:
    """Whether libpq takes no piece of a password for something else. Of keywords and values it never does."""
    return not conninfo.startswith(_POSTGRES_SCHEMES) or _POSTGRES.fullmatch(conninfo) is not None


def is_plain_amqp_url(url: str) -> bool:
    """Whether pika takes no piece of a password for something else."""
    return _AMQP.fullmatch(url) is not None
