"""Real servers for the tests: a private one, or the one that an environment variable names."""
