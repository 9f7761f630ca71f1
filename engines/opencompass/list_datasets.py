"""Writes budeval/engines/opencompass/datasets.json: the data sets of the installed OpenCompass and what each needs.

Run it with the engine's Python after OpenCompass was updated (the tests compare the file with the installed version):

    cd engines/opencompass
    PYTHONPATH=torch_stand_in PYTHON list_datasets.py > ../../budeval/engines/opencompass/datasets.json

Configurations that define no data set, and those that this version of OpenCompass cannot load itself, are left out and
named on standard error.
"""

import contextlib
import importlib.metadata
import json
import sys

from budeval_engine import catalogue, traits


def main() -> None:
    """Write the document to standard output, whatever the configurations print while they are loaded."""
    with contextlib.redirect_stdout(sys.stderr):
        document = {"opencompass": importlib.metadata.version("opencompass"), "datasets": _datasets()}
    sys.stdout.write(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _datasets() -> dict[str, dict[str, str | bool | list[str]]]:
    found: dict[str, dict[str, str | bool | list[str]]] = {}
    for name, path in sorted(catalogue.config_files(catalogue.configs_directory()).items()):
        try:
            datasets = catalogue.load(path)
            kind = catalogue.kind_of(datasets)  # resolves what the configuration names, which may not be there
        except Exception as error:  # noqa: BLE001  (outermost boundary: a configuration is a program and fails anyhow)
            sys.stderr.write(f"{name} can't be loaded: {type(error).__name__}: {str(error)[:200]}\n")
            continue
        if datasets:
            found[name] = {"kind": kind.value}
            if any(map(catalogue.is_scored_whole, datasets)):
                found[name]["whole"] = True
            told = {
                "paths": traits.data_paths(datasets),
                "metrics": traits.metrics(datasets),
                "lacks": traits.lacking(datasets),
            }
            for trait, values in told.items():
                if values:
                    found[name][trait] = values
    return found


if __name__ == "__main__":
    main()
