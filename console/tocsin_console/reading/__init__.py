"""What commands need before they can do their work: the ledger, secrets, files and `name=value` pairs."""
