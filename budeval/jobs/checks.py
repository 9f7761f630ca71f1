"""What a preflight says: one check for each thing that an evaluation needs. Pure values."""

from collections.abc import Iterable
from enum import StrEnum

from budeval.commons.redaction import printable
from budeval.jobs.models import Frozen

MAXIMUM_MESSAGE_LENGTH = 1000


class CheckStatus(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """It may work, or could not be found out: an evaluation is not refused for it."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Something before it is in the way."""


class Check(Frozen):
    """One thing that an evaluation needs."""

    id: str
    """E.g. ``permissions``, ``dataset:siqa_gen``."""
    title: str
    status: CheckStatus
    message: str
    resolution: str | None = None
    """What to do; none where nothing is to be done."""
    field: str | None = None
    """Of the request, where the check is about one."""


TITLES = {
    "request": "Request",
    "cluster": "Cluster reachable",
    "namespace": "Namespace",
    "permissions": "Permissions",
    "volume": "Volume claim",
    "manifests": "Jobs accepted by the cluster",
    "scheduling": "A pod can start",
    "image": "Engine image",
    "endpoint": "Model endpoint",
}
"""Of every check but those of data sets, in the order in which they are told."""


def dataset_check_id(dataset_id: str) -> str:
    """The id of a data set's check."""
    return f"dataset:{dataset_id}"


def check(
    check_id: str, status: CheckStatus, message: str, resolution: str | None = None, field: str | None = None
) -> Check:
    """A check, with its title and words that are fit to show."""
    title = TITLES.get(check_id) or f"Data set {check_id.partition(':')[2]}"
    text = printable(message, MAXIMUM_MESSAGE_LENGTH)
    advice = printable(resolution, MAXIMUM_MESSAGE_LENGTH) if resolution else None
    return Check(id=check_id, title=title, status=status, message=text, resolution=advice, field=field)


def ok(check_id: str, message: str, field: str | None = None) -> Check:
    """Nothing is in the way."""
    return check(check_id, CheckStatus.OK, message, None, field)


def warning(check_id: str, message: str, resolution: str | None = None, field: str | None = None) -> Check:
    """It may work, or could not be found out."""
    return check(check_id, CheckStatus.WARNING, message, resolution, field)


def failed(check_id: str, message: str, resolution: str | None = None, field: str | None = None) -> Check:
    """An evaluation cannot run."""
    return check(check_id, CheckStatus.FAILED, message, resolution, field)


def skipped(check_ids: Iterable[str], why: str) -> list[Check]:
    """Checks that could not be made."""
    return [check(check_id, CheckStatus.SKIPPED, why) for check_id in check_ids]
