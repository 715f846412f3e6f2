"""`python -m openlepton` and the `openlepton` command."""

import sys


def main() -> None:
    """Run the command line and leave with its exit status."""
    from openlepton.cli import run

    sys.exit(run())


if __name__ == "__main__":
    main()
