"""Runs the command line as `python -m listener`."""

from listener.cli import main

main()
