"""What the evaluation reads: nothing but the mounted data, and a checksum over it."""

import hashlib
import os
import sys
from pathlib import Path
from typing import NoReturn

from budeval_engine.outcome import EngineError, Reason


def missing(what: object) -> EngineError:
    """Return the error for data that is not on the volume."""
    return EngineError(
        Reason.DATASET_MISSING, f"The data is not on the volume: {what}. Put it below datasets/ and start again."
    )


def refuse_downloads() -> None:
    """Make OpenCompass say what is missing where it would start a download."""
    from opencompass.utils import datasets  # type: ignore[import-not-found]

    def refuse(data_path: str, *_arguments: object, **_options: object) -> NoReturn:
        raise missing(data_path)

    datasets.download_dataset = refuse


class ReadFiles:
    """Notes every file below `root` that this process opens."""

    def __init__(self, root: Path) -> None:
        """Start noting; it ends with `sha256`."""
        self._root = str(root.resolve()) + os.sep
        self._paths: set[str] = set()
        self._noting = True
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and self._noting and isinstance(arguments[0], (str, bytes)):
            self._paths.add(os.path.realpath(os.fsdecode(arguments[0])))

    def sha256(self) -> str:
        """Stop noting and return one checksum over names and contents of the files."""
        self._noting = False
        whole = hashlib.sha256()
        for path in sorted(path for path in self._paths if path.startswith(self._root)):
            if Path(path).is_file():
                with Path(path).open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                whole.update(f"{digest}  {path.removeprefix(self._root)}\n".encode())
        return whole.hexdigest()
