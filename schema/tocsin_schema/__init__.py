"""The ground floor: what everyone in Tocsin agrees on.

The contract on the wire, the ledger and its SQL, sealed secrets, settings, errors, and the message brokers. Nothing
here knows what producers, workers or the console do with it.
"""
