"""The embedded Postgres: the ledger of a machine on which nobody set one up.

postgres     EmbeddedPostgres: start, stop, destroy; its docstring says where everything lives
account      as whom the server runs, since Postgres refuses to run as root
binaries     where its programs are, and a readable copy of them where they lie under a closed directory
postmaster   the file in which a running server names its process and its socket
trouble      why it did not start, read from its log
"""

from tocsin_console.embedded.postgres import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
