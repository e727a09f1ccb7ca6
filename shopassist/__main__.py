"""Run the command line; signal handlers are installed before the slow imports."""

import signal
import sys


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    from shopassist.cli import run  # noqa: PLC0415 - see above

    run()


if __name__ == "__main__":
    main()
