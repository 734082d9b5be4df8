"""The ledger: Postgres, which holds every job, recipient, outcome and copy, and is the truth.

SQL lives in `migrations/` (numbered, forward only), `schema.sql` (the whole, for reading) and `queries/` (named
queries). The modules here give each query a typed face and nothing more; decisions are made elsewhere.
"""
