"""The operator's desk: the `tocsin` command, and everything that runs Tocsin on one machine.

Only this package may know all the others. It decides nothing about mail: it reads settings, calls producers,
workers and the ledger, and puts what happened into words.
"""
