"""`python -m tocsin_console`: the `tocsin` command."""

from tocsin_console.main import run

run()
