"""``GET /engines`` and ``GET /datasets``: what can be evaluated with."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, TypeAdapter, field_validator

from budeval.api.pages import Cursor, Page, PageQuery, decode_cursor, page_of
from budeval.api.problem import documented
from budeval.api.schemas import ShortText
from budeval.engines import ENGINES, DatasetInfo, Engine, get_engine
from budeval.evals.inventory import InventoryKeeper

_KEY = TypeAdapter(tuple[ShortText, ShortText])
_REFUSED = {HTTPStatus.UNPROCESSABLE_ENTITY: "A filter, the limit or the cursor is not valid"}

_LOOKED = {HTTPStatus.SERVICE_UNAVAILABLE: "The volume cannot be looked at now"}


class EngineView(BaseModel):
    """An engine that the service can run."""

    name: str
    version: str
    datasets: int
    """Data sets that it knows."""
    usable_datasets: int
    """Those among them that can be run against a chat API."""
    parameters: dict[str, Any]
    """JSON schema of ``eval_model_info.extra_args``."""


class EngineQuery(PageQuery):
    """Which part of the list."""

    cursor: Cursor | None = None

    @field_validator("cursor")
    @classmethod
    def _is_a_name(cls, cursor: str | None) -> str | None:
        return cursor if cursor is None else decode_cursor(cursor, TypeAdapter(ShortText))


class DatasetQuery(PageQuery):
    """Filters and page; every filter that is given must fit."""

    engine: ShortText | None = None
    search: ShortText | None = None
    """Words that the name has inside, in any order and case."""
    usable: bool | None = None
    """Whether it can be run against a chat API."""
    present: bool | None = None
    """Whether its files are on the volume; what is not known is neither."""
    cursor: Cursor | None = None

    @field_validator("engine")
    @classmethod
    def _is_known(cls, engine: str | None) -> str | None:
        return engine if engine is None else get_engine(engine).name

    @field_validator("cursor")
    @classmethod
    def _is_a_key(cls, cursor: str | None) -> str | None:
        if cursor is not None:
            decode_cursor(cursor, _KEY)
        return cursor

    def fits(self, dataset: DatasetInfo) -> bool:
        """Whether a data set is looked for, and behind the page before."""
        name = dataset.dataset_id.lower()
        return (
            self.engine in (None, dataset.engine)
            and self.usable in (None, dataset.usable)
            and self.present in (None, dataset.present)
            and all(word in name for word in (self.search or "").lower().split())
            and (self.cursor is None or _key(dataset) > decode_cursor(self.cursor, _KEY))
        )


class DatasetPage(Page[DatasetInfo]):
    """A part of the list of data sets."""

    checked_at: datetime | None
    """When the volume was looked at; null: not yet."""
    problem: str | None
    """Why the newest look at the volume failed."""


class VolumeView(BaseModel):
    """The volume with the data sets, as it was seen."""

    checked_at: datetime | None
    """When it was looked at."""


def catalogue_router(keeper: InventoryKeeper) -> APIRouter:
    """``/engines`` and ``/datasets``."""
    router = APIRouter(tags=["catalogue"])

    @router.get("/engines", responses=documented(_REFUSED))
    def engines(query: Annotated[EngineQuery, Query()]) -> Page[EngineView]:
        """Every engine, with the parameters it takes."""
        names = sorted(name for name in ENGINES if query.cursor is None or name > query.cursor)
        return page_of([_view(ENGINES[name]) for name in names], query.limit, lambda engine: engine.name)

    @router.get("/datasets", responses=documented(_REFUSED))
    def datasets(query: Annotated[DatasetQuery, Query()]) -> DatasetPage:
        """Every data set that the engines know, by name, and what of it lies on the volume."""
        inventory = keeper.known()
        known = [inventory.described(dataset) for engine in ENGINES.values() for dataset in engine.datasets()]
        found = sorted((dataset for dataset in known if query.fits(dataset)), key=_key)
        page = page_of(found, query.limit, _key)
        return DatasetPage(**vars(page), checked_at=inventory.checked_at, problem=inventory.problem)

    @router.post("/datasets/refresh", responses=documented(_LOOKED))
    def refresh() -> VolumeView:
        """Look at the volume now, and wait until it was seen: a Job runs for some seconds."""
        return VolumeView(checked_at=keeper.refreshed().checked_at)

    return router


def _key(dataset: DatasetInfo) -> tuple[str, str]:
    return dataset.dataset_id, dataset.engine


def _view(engine: Engine) -> EngineView:
    known = engine.datasets()
    return EngineView(
        name=engine.name,
        version=engine.version,
        datasets=len(known),
        usable_datasets=sum(dataset.usable for dataset in known),
        parameters=engine.parameters_schema(),
    )
