"""`tocsin worker`: a few child processes, restarted when they die, gone when it goes; and their `/metrics`."""
