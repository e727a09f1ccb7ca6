"""Run the command line; signal handlers are installed before the slow imports."""

import os
import signal
import sys


def open_missing_streams() -> None:
    """Open closed standard streams on /dev/null; else the next file or socket would take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - open as long as the process runs
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def main() -> None:
    """Run the command line."""
    open_missing_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    from shopassist.cli import run  # noqa: PLC0415 - see above

    run()


if __name__ == "__main__":
    main()
