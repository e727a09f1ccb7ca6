"""The way in from the command line.

Signals are seen to before anything else is imported: the first process of a container ignores those it has no handler
for, and importing takes most of a second.
"""

import signal
import sys


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    from shopassist.command_line import run  # noqa: PLC0415 - see above

    run()


if __name__ == "__main__":
    main()
