"""The contract on the wire: what one part of a job looks like, and what is refused.

Everybody who publishes and everybody who takes in meets here. Nothing in this package does any I/O.
`decode_part` takes bytes from anywhere and raises `ContractError` and nothing else.
"""
