"""Prometheus metrics: requests as they come, evaluations and notifications as the record has them when asked."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from budeval.api.problem import documented
from budeval.commons.wire import WorkflowStatus
from budeval.record import Record
from budeval.record.outbox import Outbox


class RecordCollector(Collector):
    """Counts in the record at the time of the scrape: true also with several services on one record."""

    def __init__(self, record: Record, outbox: Outbox) -> None:
        self._record = record
        self._outbox = outbox

    def collect(self) -> Iterator[Metric]:
        """Prometheus' protocol."""
        evaluations = GaugeMetricFamily("budeval_evaluations", "Evaluations in the record", labels=["status"])
        counts = self._record.count_by_status()
        for status in WorkflowStatus:
            if status in counts:
                evaluations.add_metric([status], counts[status])
        yield evaluations
        places = self._record.admission.counts()
        for name, meaning, value in (
            ("budeval_evaluations_running", "Evaluations that have a place and have not ended", places.running),
            ("budeval_evaluations_running_jobs", "Runs of those evaluations, each a Job", places.jobs),
            ("budeval_evaluations_queued", "Evaluations that wait for a place", places.waiting),
        ):
            yield GaugeMetricFamily(name, meaning, value=value)
        yield GaugeMetricFamily(
            "budeval_evaluations_notifications_waiting",
            "Evaluations with notifications that could not be published yet",
            value=len(self._outbox.waiting()),
        )
        yield GaugeMetricFamily(
            "budeval_evaluations_notifications_unknown",
            "Evaluations with notifications of which nobody knows whether the broker has them",
            value=self._outbox.in_doubt(),
        )

    def describe(self) -> Iterator[Metric]:
        """Nothing is collected when the collector is registered: the record may not be there yet."""
        return iter(())


class Metrics:
    """The registry of one application."""

    def __init__(self, record: Record, outbox: Outbox) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(RecordCollector(record, outbox))
        self.requests = Histogram(
            "budeval_http_request_seconds", "Requests by route", ["method", "route", "status"], registry=self.registry
        )
        self.refused = Counter(
            "budeval_http_refused", "Requests that were not let in", ["reason"], registry=self.registry
        )

    def router(self) -> APIRouter:
        """``/metrics``."""
        router = APIRouter(tags=["health"])

        @router.get("/metrics", response_class=Response, responses=_ANSWERS)
        def metrics() -> Response:
            """Prometheus' text format."""
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

        return router


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}},
    **documented({HTTPStatus.SERVICE_UNAVAILABLE: "The record does not answer"}),
}
