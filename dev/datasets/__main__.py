"""`python -m dev.datasets`: list data sets, put them on the volume, or put one's own there."""

import argparse
import sys
from pathlib import Path

from dev.command_line import exit_code
from dev.datasets.installation import add_own, install, is_installed
from dev.datasets.manifest import read_manifest
from dev.settings import load_settings


def main() -> int:
    """Run one command; return the exit status."""
    options = _options()
    return exit_code(lambda: _dispatch(options))


def _dispatch(options: argparse.Namespace) -> int:
    root: Path = options.root or load_settings().data / "datasets"
    if options.command == "list":
        _show(root)
    elif options.source is not None:
        (name,) = options.names
        print(f"{name}: sha256 {add_own(root, options.source, name)}")
    else:
        for entry in install(root, options.names or None):
            print(f"{entry.name}: {entry.questions} questions, for {', '.join(entry.dataset_ids)}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.datasets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="what the manifest has, and what is there")
    installing = commands.add_parser("install", help="lay data sets out; checks those that are there")
    for command in (listing, installing):
        command.add_argument(
            "--root", type=Path, help="what OpenCompass gets as COMPASS_DATA_CACHE; the local volume's"
        )
    installing.add_argument("--from", dest="source", type=Path, metavar="DIR", help="copy a folder of your own")
    installing.add_argument("names", nargs="*", help="all of the manifest when left out")
    options = parser.parse_args()
    if options.command == "install" and options.source is not None and len(options.names) != 1:
        parser.error("--from needs exactly one name")
    return options


def _show(root: Path) -> None:
    for entry in read_manifest().values():
        state = "installed" if is_installed(root, entry) else "-"
        print(f"{entry.name:<10} {state:<10} {entry.questions:>5} questions  {entry.licence:<14} {entry.package}")
        print(f"{'':<10} {', '.join(entry.dataset_ids)}\n{'':<10} {entry.source}")


if __name__ == "__main__":
    sys.exit(main())
