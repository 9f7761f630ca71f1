"""All benchmarks, one after the other: ``python -m benchmarks``."""

import sys

from benchmarks import sweep

if __name__ == "__main__":
    sys.exit(sweep.main())
