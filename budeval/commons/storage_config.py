"""Where evaluations live in the cluster (the guide's ``StorageConfig``)."""

from pathlib import PurePosixPath

from budeval.commons.settings import get_settings

DATASETS_SUBPATH = "datasets"
"""Directory of the claim with the data sets; becomes OpenCompass' ``COMPASS_DATA_CACHE``."""
RESULTS_SUBPATH = "results"
"""Directory of the claim with one directory per evaluation, and in it one per run."""


class StorageConfig:
    """Namespace and paths, in one place."""

    @staticmethod
    def get_current_namespace() -> str:
        """The namespace in which Jobs run."""
        return get_settings().namespace

    @staticmethod
    def results_path(eval_id: str, job_name: str) -> PurePosixPath:
        """Directory of one run, relative to the claim."""
        return PurePosixPath(RESULTS_SUBPATH) / eval_id / job_name
