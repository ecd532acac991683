"""Entry point of ``python -m vimectl``."""

from vimectl.cli import main

main()
