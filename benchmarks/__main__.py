"""All benchmarks, one after the other: ``python -m benchmarks``."""

import argparse
import sys

from benchmarks import admission, service, sweep
from benchmarks.report import Report

PARTS = {"admission": admission.main, "service": service.main, "cluster": sweep.main}


def main() -> int:
    """Runs them; 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part (default: all)")
    parser.add_argument("--json", action="store_true", help="tables as JSON, for programs")
    parser.add_argument("--repeats", type=int, default=5, help="admission, cluster: repetitions of each (default: 5)")
    parser.add_argument("--guide-jobs", type=int, default=10, help="cluster: Jobs of the guide's (default: 10)")
    parser.add_argument("--listeners", type=int, default=1000, help="service: idle listeners (default: 1000)")
    parser.add_argument("--idle-seconds", type=float, default=15, help="service: how long (default: 15)")
    options = parser.parse_args()
    report = Report(as_json=options.json)
    codes = [part(report, options) for name, part in PARTS.items() if options.only in (None, name)]
    report.close()
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
