"""What an operator may change about the pods of a run, because clusters differ in it.

The shape is a fragment of a PodTemplateSpec. Only fields named here are taken: what keeps a run apart from its
node and from other runs (volumes, privileges, capabilities, host paths, the image) is not among them.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field

from budeval.commons.settings import setting

JsonObject = dict[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OverlayMetadata(_Part):
    """Labels and annotations added to the pods; budeval's own ones win."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class OverlaySecurityContext(_Part):
    """Identities that some clusters prescribe; never root."""

    runAsUser: Annotated[int, Field(gt=0)] | None = None
    runAsGroup: Annotated[int, Field(gt=0)] | None = None
    fsGroup: Annotated[int, Field(gt=0)] | None = None
    fsGroupChangePolicy: Literal["Always", "OnRootMismatch"] | None = None
    supplementalGroups: list[Annotated[int, Field(gt=0)]] | None = None
    seLinuxOptions: JsonObject | None = None


class OverlayVariable(_Part):
    """A plain environment variable, e.g. of a proxy; values from Secrets are not for an overlay."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: str


class OverlayContainer(_Part):
    """Changes to the engine container."""

    name: Literal["engine"] = "engine"
    resources: JsonObject | None = None
    env: list[OverlayVariable] = []


class OverlaySpec(_Part):
    """Fields of a PodSpec that an overlay may set."""

    nodeSelector: dict[str, str] | None = None
    tolerations: list[JsonObject] | None = None
    affinity: JsonObject | None = None
    topologySpreadConstraints: list[JsonObject] | None = None
    hostNetwork: bool | None = None
    dnsPolicy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] | None = None
    dnsConfig: JsonObject | None = None
    hostAliases: list[JsonObject] | None = None
    imagePullSecrets: list[dict[str, str]] | None = None
    priorityClassName: str | None = None
    runtimeClassName: str | None = None
    schedulerName: str | None = None
    serviceAccountName: str | None = None
    securityContext: OverlaySecurityContext | None = None
    containers: Annotated[list[OverlayContainer], Field(max_length=1)] = []


class PodTemplateOverlay(_Part):
    """A fragment of a PodTemplateSpec that is laid over the one budeval makes."""

    metadata: OverlayMetadata = OverlayMetadata()
    spec: OverlaySpec = OverlaySpec()

    @classmethod
    def from_settings(cls, file: Path | None) -> Self:
        """Reads it from a YAML file; none: nothing is laid over. Raises :class:`StartRefused`."""
        if file is None:
            return cls()
        with setting("BUDEVAL_POD_TEMPLATE_OVERLAY", file):
            try:
                return cls.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
            except yaml.YAMLError as error:
                raise ValueError(f"is not YAML: {' '.join(str(error).split())}") from error

    def lay_over(self, template: JsonObject) -> JsonObject:
        """A copy of a pod template with this overlay's fields; mappings are merged, lists replaced."""
        spec = self.spec.model_dump(exclude_none=True, exclude={"containers"})
        merged = merge(template, {"metadata": self._metadata(template), "spec": spec})
        for container in self.spec.containers:
            merged["spec"]["containers"] = [_container(merged["spec"]["containers"][0], container)]
        return merged

    def _metadata(self, template: JsonObject) -> JsonObject:
        return merge(self.metadata.model_dump(), template.get("metadata", {}))


def merge(below: JsonObject, above: JsonObject) -> JsonObject:
    """A new mapping with the values of ``above`` over those of ``below``; mappings inside are merged too."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _container(below: JsonObject, above: OverlayContainer) -> JsonObject:
    taken = {variable["name"] for variable in below.get("env", [])}
    added = [variable.model_dump() for variable in above.env if variable.name not in taken]
    return merge(below, {"resources": above.resources or {}, "env": [*below.get("env", []), *added]})
