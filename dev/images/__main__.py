"""`python -m dev.images build NAME...`: build images and print where their archives are."""

import argparse
import sys

from dev.errors import StackError
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
    settings = load_settings()
    try:
        for name in arguments.names:
            print(ensure_base(settings) if name == BASE else ensure_image(settings, name))
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
