"""The child process: OpenCompass itself, from reading the data to the scores.

It runs apart from the supervisor, so that the kernel's out-of-memory killer takes this process and leaves one that can
say so. `python -m budeval_engine.evaluation`, with the pipe for events in BUDEVAL_EVENTS.
"""

import os
import shutil
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from budeval_engine import catalogue, data_access, run_config, session, traits
from budeval_engine.asking import Tally
from budeval_engine.endpoint import EndpointClient
from budeval_engine.events import DESCRIPTOR, EventWriter
from budeval_engine.journal import Journal
from budeval_engine.layout import MODEL_COLUMN, OUTPUT_NAME, Layout
from budeval_engine.outcome import EngineError, Reason
from budeval_engine.secrecy import hide_process

# Batches this many times the concurrency: OpenCompass waits for the slowest answer of each batch.
_BATCHES_DEEP = 8
_MODEL_TYPE = "budeval_engine.endpoint_model.EndpointModel"


def main() -> int:
    """Run the evaluation and report through the pipe; the exit status is 0 only when OpenCompass went through."""
    hide_process()
    events = EventWriter(int(os.environ.pop(DESCRIPTOR)))
    key = sys.stdin.read()  # not from the environment, which code that a model wrote could read later on
    layout = Layout.from_environment()
    try:
        _evaluate(layout, run_config.load(layout.configuration), key, events)
    except EngineError as error:
        events.failure(error)
        return 1
    except MemoryError:
        events.failure(EngineError(Reason.OUT_OF_MEMORY, "The evaluation needs more memory than it may have."))
        return 1
    except Exception as error:  # noqa: BLE001  (outermost boundary: OpenCompass can raise anything)
        traceback.print_exc()
        events.failure(EngineError(Reason.ENGINE_FAILED, f"OpenCompass failed: {_words(error)}"))
        return 1
    return 0


def _evaluate(layout: Layout, config: run_config.RunConfig, key: str, events: EventWriter) -> None:
    data_access.refuse_downloads()
    read_files = data_access.ReadFiles(layout.data)
    datasets = _datasets(config)
    events.questions(count_questions(datasets))
    events.data(read_files.sha256())
    plan = _write_plan(layout, config, datasets)
    _remove_former_output(layout)
    events.phase("inference")
    _infer(layout, config, key, plan, events)
    events.phase("scoring")
    _run_opencompass(plan, layout, "eval")


def _datasets(config: run_config.RunConfig) -> list[Any]:
    """Return OpenCompass' configuration of the data set, limited as asked for."""
    path = catalogue.find(config.dataset_id, catalogue.configs_directory())
    datasets = catalogue.load(path)
    if not datasets:
        raise EngineError(Reason.DATASET_UNKNOWN, f"{config.dataset_id} only serves other data sets.")
    kind = catalogue.kind_of(datasets)
    if kind is not catalogue.Kind.GENERATE:
        needs = "a judge model" if kind is catalogue.Kind.JUDGE else "probabilities that a chat API does not tell"
        raise EngineError(Reason.INVALID_CONFIGURATION, f"{config.dataset_id} needs {needs}.")
    refuse_wrong_scores(config.dataset_id, datasets)
    if config.max_questions is not None:
        catalogue.limit(datasets, config.max_questions)
    return datasets


def refuse_wrong_scores(dataset_id: str, datasets: list[Any]) -> None:
    """Raise EngineError where the scorer would go on without something that it needs, and call right answers wrong."""
    lacking = traits.lacking(datasets)
    if lacking:
        packages = ", ".join(lacking)
        raise EngineError(
            Reason.INVALID_CONFIGURATION,
            f"{dataset_id} is scored with Python packages that this image lacks: {packages}.",
        )
    root = Layout.from_environment().data
    absent = [path for path in traits.scorer_paths(datasets) if not (root / path).is_dir()]
    if absent:
        raise data_access.missing(f"{dataset_id} is scored with {', '.join(absent)}")


def count_questions(datasets: Iterable[Any]) -> Mapping[str, int]:
    """Load every data set as OpenCompass will and count its questions; raises EngineError DatasetMissing."""
    from opencompass.utils import build_dataset_from_cfg, dataset_abbr_from_cfg  # type: ignore[import-not-found]

    counts: dict[str, int] = {}
    for dataset in datasets:
        try:
            count = len(build_dataset_from_cfg(dataset).test)
        except (OSError, ConnectionError) as error:  # also what the hub clients raise when they are offline
            raise data_access.missing(_words(error)) from error
        if not count:
            raise data_access.missing(f"{dataset_abbr_from_cfg(dataset)} has no questions")
        counts[dataset_abbr_from_cfg(dataset)] = count
    return counts


def _write_plan(layout: Layout, config: run_config.RunConfig, datasets: list[Any]) -> Path:
    """Write the configuration that OpenCompass reads. Nothing in it was written by a user, checked numbers aside."""
    from mmengine.config import Config  # type: ignore[import-not-found]

    parameters = config.parameters
    model = {
        "abbr": MODEL_COLUMN,
        "type": _MODEL_TYPE,
        "tokenizer_path": str(layout.tokenizer),
        "query_per_second": parameters.query_per_second,
        "max_workers": parameters.batch_size,
        "batch_size": parameters.batch_size * _BATCHES_DEEP,
        "max_out_len": parameters.max_out_len,
        "max_seq_len": parameters.max_seq_len,
        "temperature": parameters.temperature,
    }
    plan = layout.scratch / "opencompass_plan.py"
    content = {"datasets": datasets, "models": [model], "summarizer": {"summary_groups": _groups(datasets)}}
    Config(content, format_python_code=False).dump(str(plan))
    return plan


def _groups(datasets: list[Any]) -> list[Any]:
    """Return the averages that OpenCompass defines over data sets of several parts."""
    from mmengine.config import Config

    if len(datasets) == 1:
        return []
    names = {dataset["abbr"] for dataset in datasets}
    groups: list[Any] = []
    directory = catalogue.configs_directory().parent / "summarizers" / "groups"
    for path in sorted(directory.rglob("*.py")):
        config = Config.fromfile(str(path), format_python_code=False)
        for key in config:
            if key.endswith("_summary_groups"):
                groups += [group for group in config[key] if names.issuperset(_members(group))]
    return groups


def _members(group: Mapping[str, Any]) -> Iterable[str]:
    return (member if isinstance(member, str) else member[0] for member in group["subsets"])


def _remove_former_output(layout: Layout) -> None:
    """Start OpenCompass' output anew: what an earlier attempt learned is in the journal, failures are only in here."""
    if layout.opencompass.exists():
        shutil.rmtree(layout.opencompass)


def _infer(layout: Layout, config: run_config.RunConfig, key: str, plan: Path, events: EventWriter) -> None:
    """Put all questions; raises EngineError when the endpoint can't be used or a question got no answer."""
    parameters = config.parameters
    tally = Tally()
    client = EndpointClient(
        config.endpoint, config.model_name, key, timeout=parameters.timeout, retries=parameters.retry
    )
    journal = Journal(layout.answers)
    session.begin(session.Session(client, journal, events.done, tally))
    try:
        _run_opencompass(plan, layout, "infer")
    finally:
        session.end()
        events.asked(tally)
        client.close()
        journal.close()
    if tally.failed:
        asked = tally.failed + tally.answered
        raise EngineError(
            Reason.RESULTS_INCOMPLETE, f"{tally.failed} of {asked} questions got no answer. {tally.first_failure}"
        )


def _run_opencompass(plan: Path, layout: Layout, mode: str) -> None:
    """Call OpenCompass' command in this process. With `--debug` it raises what it otherwise logs and forgets."""
    from opencompass.cli.main import main as opencompass  # type: ignore[import-not-found]

    output = layout.opencompass.parent
    arguments = [
        str(plan),
        "--work-dir",
        str(output),
        "-r",
        OUTPUT_NAME,
        "-m",
        mode,
        "--max-num-workers",
        "1",
        "--debug",
    ]
    sys.argv[1:] = arguments
    opencompass()


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


if __name__ == "__main__":
    sys.exit(main())
