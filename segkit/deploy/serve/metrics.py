"""What /metrics tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client import disable_created_metrics as leave_out_creation_times
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters of one server; a label never takes a value that a stranger makes up."""

    def __init__(self) -> None:
        leave_out_creation_times()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        register = {"registry": self.registry}
        self.requests = Counter(
            "segkit_requests", "Requests by route, method and status", ("route", "method", "status"), **register
        )
        self.seconds = Histogram(
            "segkit_request_seconds", "From the request's headers to the end of the reply", ("route",),
            buckets=_SECONDS, **register,
        )  # fmt: skip
        self.stages = Histogram(
            "segkit_stage_seconds", "Of a photo: read, engine (waiting included), write", ("model", "stage"),
            buckets=_SECONDS, **register,
        )  # fmt: skip
        self.batches = Histogram(
            "segkit_batch_photos", "Photos that went through the engine together", ("model",),
            buckets=(1, 2, 4, 8, 16, 32, 64), **register,
        )  # fmt: skip
        self.engine = Counter("segkit_engine_seconds", "Seconds that the engine worked", ("model",), **register)
        self.photos = Counter("segkit_photos", "Photos answered, by model and format", ("model", "format"), **register)
        self.waiting = Gauge("segkit_photos_taken", "Photos taken and not yet answered", **register)

    def text(self) -> bytes:
        """The page in Prometheus' text format."""
        return generate_latest(self.registry)
