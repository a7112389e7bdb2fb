"""The program `listener`; also `python -m listener`."""

import signal


def main() -> None:
    """Run the command line."""
    # Ctrl-C must end the imports without a traceback; the command group handles the rest.
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from listener.cli import main as commands

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    commands(prog_name="listener")


if __name__ == "__main__":
    main()
