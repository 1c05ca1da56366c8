"""`dcft` and `python -m dcft_cli`: Ctrl-C while they start ends them without a traceback."""

import os
import signal


def main() -> None:
    """Import the commands, which takes a moment, and run the command line."""
    # Threads of GNU OpenMP that wait for others spin for milliseconds: on processors that other
    # programs use too, that doubles the time (benchmarks/RESULTS.md). Read when torch is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # What is ignored (by a shell's background job) stays ignored.
    handles = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if handles:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dcft_cli.cli import main as run

    if handles:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
