"""Where the engine finds and leaves its files; every place can be set, for runs outside a container."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The files of one run."""

    configuration: Path
    """The mounted JSON file that says what to run."""
    workspace: Path
    """Writable, kept between attempts: answers, OpenCompass' own output, the result and the log."""
    data: Path
    """Read-only root of the data sets; OpenCompass looks for `data/<name>/...` below it."""
    tokenizer: Path
    """The offline tokenizer that OpenCompass counts lengths with."""
    termination_log: Path
    """The file that Kubernetes reads when the container ends."""
    scratch: Path
    """Writable, lost with the pod."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Layout":
        """Read the places from `environment`; the defaults are those of the image."""
        return cls(
            configuration=Path(environment.get("BUDEVAL_RUN_CONFIG", "/etc/budeval/run.json")),
            workspace=Path(environment.get("BUDEVAL_WORKSPACE", "/workspace")),
            data=Path(environment.get("COMPASS_DATA_CACHE", "/cache")),
            tokenizer=Path(environment.get("BUDEVAL_TOKENIZER", "/opt/engine/tokenizer")),
            termination_log=Path(environment.get("BUDEVAL_TERMINATION_LOG", "/dev/termination-log")),
            scratch=Path(environment.get("TMPDIR", "/tmp")),  # noqa: S108  (the image mounts an emptyDir there)
        )

    @property
    def answers(self) -> Path:
        """The journal of answered questions."""
        return self.workspace / "answers.jsonl"

    @property
    def log(self) -> Path:
        """What OpenCompass and the engine said, the key masked."""
        return self.workspace / "engine.log"

    @property
    def started(self) -> Path:
        """When the first attempt began."""
        return self.workspace / "started.json"

    @property
    def result(self) -> Path:
        """The result, there only when it is complete."""
        return self.workspace / "result.json"

    @property
    def opencompass(self) -> Path:
        """OpenCompass' output directory of this run: predictions, results, summary."""
        return self.workspace / "opencompass" / OUTPUT_NAME


OUTPUT_NAME = "run"
"""The fixed name given to OpenCompass, where it would otherwise make one of the time."""

MODEL_COLUMN = "model"
"""What OpenCompass calls the model in paths and tables: fixed, so that the user's name for it never becomes a path."""
