"""Rotating the master key beside a fleet that works: open the new one everywhere, promote it, seal anew, retire."""
