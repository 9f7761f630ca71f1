"""Command line of the local stack: `python -m dev COMMAND`."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from dev.command_line import exit_code
from dev.errors import StackError
from dev.settings import load_settings
from dev.stack import GROUPS, PartStatus, Stack


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 where it did what it says."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _dispatch(options, Stack(load_settings())))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="bring the stack up (idempotent)")
    up.add_argument("groups", nargs="*", metavar="GROUP", help=f"only these: {' '.join(GROUPS)}")
    commands.add_parser("down", help="stop everything; data and caches stay")
    status = commands.add_parser("status", help="show every part")
    status.add_argument("--json", action="store_true", help="for programs")
    service = commands.add_parser("service", help="start or stop the service and its sidecar, supervised")
    service.add_argument("action", choices=["start", "stop"])
    commands.add_parser("cluster-setup", help="give the cluster of KUBECONFIG what the service needs")
    return parser


def _dispatch(options: argparse.Namespace, stack: Stack) -> int:
    started = time.monotonic()
    match options.command:
        case "up":
            stack.up(_groups(options.groups))
            print(
                f"up after {time.monotonic() - started:.1f} s; use it from a shell with: . {stack.settings.state}/env"
            )
        case "down":
            stack.down()
            print(f"down after {time.monotonic() - started:.1f} s")
        case "cluster-setup":
            stack.set_cluster_up()
        case "service" if options.action == "start":
            stack.start_service()
        case "service":
            stack.stop_service()
        case "status":
            return _show(stack.status(), as_json=options.json)
    return 0


def _groups(named: Sequence[str]) -> Sequence[str]:
    if unknown := sorted(set(named) - set(GROUPS)):
        raise StackError(f"Unknown group {' '.join(unknown)}; there are: {' '.join(GROUPS)}")
    return named or GROUPS


def _show(lines: Sequence[PartStatus], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=2))
    else:
        print(f"{'PART':<26}{'STATE':<12}{'PID':>8}{'UPTIME':>10}  DETAIL")
        for line in lines:
            uptime = "" if line.uptime is None else f"{line.uptime} s"
            print(f"{line.name:<26}{line.state:<12}{line.pid or '':>8}{uptime:>10}  {line.detail}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
