"""`python -m dev.images build NAME...`: build images and print where their archives are."""

import argparse
import sys
from collections.abc import Sequence

from dev.command_line import exit_code
from dev.images.build import ensure_base, ensure_image
from dev.images.recipes import IMAGES
from dev.settings import load_settings

BASE = "python-base"


def main() -> int:
    """Build the images named on the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dev.images", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build images that are not in the cache")
    build.add_argument("names", nargs="+", choices=[*sorted(IMAGES), BASE])
    arguments = parser.parse_args()
    return exit_code(lambda: _build(arguments.names))


def _build(names: Sequence[str]) -> int:
    settings = load_settings()
    for name in names:
        print(ensure_base(settings) if name == BASE else ensure_image(settings, name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
