"""The sender: one call works a slice, about a second of one profile's work over one connection."""
