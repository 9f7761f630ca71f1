"""Kubernetes quantities (``500m``, ``2Gi``, ``1e3``), as far as the resources of a Job need them."""

import re
from decimal import Decimal

from budeval.evals.models import AskedResources
from budeval.jobs.models import JsonObject

MAXIMUM_QUANTITY_LENGTH = 32

_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,9})?)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,2}))?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


def parse_quantity(text: str) -> Decimal:
    """The number that a quantity stands for; raises ``ValueError`` where it is none, or is not above zero."""
    found = _QUANTITY.fullmatch(text) if len(text) <= MAXIMUM_QUANTITY_LENGTH else None
    if found is None:
        raise ValueError("must be a Kubernetes quantity such as 500m, 2 or 4Gi")
    number, suffix, exponent = found.groups()
    value = Decimal(number) * _factor(suffix, exponent)
    if value <= 0:
        raise ValueError("must be more than zero")
    return value


def with_asked(resources: JsonObject, asked: AskedResources) -> JsonObject:
    """Requests and limits of a container with those that were asked for over them.

    Kubernetes refuses a request above its limit: what was not asked for gives way.
    """
    limits = {**resources.get("limits", {}), **asked.limits}
    requests = {**resources.get("requests", {}), **asked.requests}
    for name in limits.keys() & requests.keys():
        if parse_quantity(str(requests[name])) > parse_quantity(str(limits[name])):
            if name in asked.requests:
                limits[name] = requests[name]
            else:
                requests[name] = limits[name]
    return {**resources, "requests": requests, "limits": limits}


def _factor(suffix: str | None, exponent: str | None) -> Decimal:
    if exponent is not None:
        return Decimal(10) ** int(exponent)
    if suffix is None:
        return Decimal(1)
    return Decimal(1024) ** (_BINARY.index(suffix) + 1) if suffix in _BINARY else Decimal(10) ** _DECIMAL[suffix]
