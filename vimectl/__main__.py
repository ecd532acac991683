"""``python -m vimectl``."""

from vimectl.cli import main

main()
