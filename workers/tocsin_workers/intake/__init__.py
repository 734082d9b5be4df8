"""Intake: a part from the queue becomes rows in the ledger, in one transaction, however often it comes."""
