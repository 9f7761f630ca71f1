"""Published data sets for the volume, out of Python packages, as OpenCompass wants them to lie.

`manifest.json` says of each where it comes from, under which licence, which data set names of OpenCompass it serves,
and the checksum of every file. `install(root)` is what other code calls; `python -m dev.datasets install` does it by
hand.
"""

from dev.datasets.installation import add_own, install
from dev.datasets.manifest import DatasetEntry, read_manifest

__all__ = ["DatasetEntry", "add_own", "install", "read_manifest"]
