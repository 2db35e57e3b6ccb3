"""The door of `nfctl`, also as `python -m nfctl`."""

import signal


def main() -> None:
    """Run a command. A Ctrl-C while its modules are imported ends it at once, and without a traceback."""
    told = signal.getsignal(signal.SIGINT)
    if told is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nfctl import cli  # after that, since it takes a while

    signal.signal(signal.SIGINT, told)
    cli.main()


if __name__ == "__main__":
    main()
