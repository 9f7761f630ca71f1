"""Prometheus metrics: requests as they come, evaluations and notifications as the record has them when asked."""

from collections.abc import Iterator

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
        yield GaugeMetricFamily(
            "budeval_evaluations_notifications_waiting",
            "Evaluations with notifications that could not be published yet",
            value=len(self._outbox.waiting()),
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

        @router.get("/metrics", response_class=Response)
        def metrics() -> Response:
            """Prometheus' text format."""
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

        return router
