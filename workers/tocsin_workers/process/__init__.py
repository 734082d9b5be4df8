"""One worker process: a dramatiq worker on a role's queues, with everything that its actors share."""
