"""Start the command line, as the program ``genkit`` and as ``python -m genkit``."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is imported ends the process without a traceback."""
    try:
        from genkit.cli import main as run_command_line
    except KeyboardInterrupt:
        from genkit.errors import InterruptedRun

        sys.stderr.write("\nStopped before the command began.\n")
        sys.exit(InterruptedRun.exit_code)
    run_command_line()


if __name__ == "__main__":
    main()
