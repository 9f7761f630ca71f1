"""Tables of the record (SQLAlchemy 2). A change here needs a migration in ``migrations/versions``."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Index, LargeBinary, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: aware in Python, UTC in the database (SQLite keeps no zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuses a time without a zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a time without a zone: {value}")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Gives the zone back."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables of the record."""

    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, bytes: LargeBinary}  # noqa: RUF012


class EvaluationRow(Base):
    """One request and where it stands."""

    __tablename__ = "evaluations"
    __table_args__ = (
        Index("evaluations_by_creation", "created_at", "eval_id"),
        Index("evaluations_by_model", "model_name", "eval_id"),
        Index("evaluations_in_queue", "status", "admitted_at", "last_heard_at", "eval_id"),
    )

    eval_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    definition: Mapped[dict[str, Any]]
    """The :class:`~budeval.evals.models.Evaluation`, without secrets."""
    experiment_id: Mapped[str | None] = mapped_column(String(36), index=True)
    model_name: Mapped[str] = mapped_column(String(256))
    engine: Mapped[str] = mapped_column(String(256))
    source: Mapped[str] = mapped_column(String(256))
    """These four are in the definition too; here so that evaluations can be found by them."""
    attempt: Mapped[int]
    """The attempt that runs or ran last; each has a workflow of its own."""
    requested_by: Mapped[str] = mapped_column(String(256))
    """Who asked for it: a name that the service knows, unlike ``source``, which the request says of itself."""
    status: Mapped[str] = mapped_column(String(16), index=True)
    created_at: Mapped[datetime]
    admitted_at: Mapped[datetime | None]
    """When it was let in; none: it waits for a place."""
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    last_heard_at: Mapped[datetime]
    """When an activity of this evaluation last ran; the pulse wakes those that are silent for long. Of one that waits
    for a place: when it asked for it."""
    poll_interval: Mapped[int]
    """Seconds; here so that the pulse need not read definitions."""
    steps: Mapped[dict[str, Any]]
    """Step id to ``{status, message, at}``."""
    eta_minutes: Mapped[int | None]
    error: Mapped[dict[str, Any] | None]
    cancel_requested_at: Mapped[datetime | None]
    cancelled_by: Mapped[str | None] = mapped_column(String(200))
    request_salt: Mapped[str | None] = mapped_column(String(64))
    request_digest: Mapped[str | None] = mapped_column(String(64))
    """Salted digest of the whole request, secrets included, to tell a repetition; erased at the end."""
    sealed_secrets: Mapped[bytes | None]
    """Erased at the end."""
    newest_sequence: Mapped[int]
    """Sequence of the newest entry in its timeline; 0: there is none."""


class RunRow(Base):
    """One run of an evaluation."""

    __tablename__ = "runs"
    __table_args__ = (Index("runs_by_dataset", "dataset_id", "eval_id"),)

    eval_id: Mapped[str] = mapped_column(ForeignKey("evaluations.eval_id", ondelete="CASCADE"), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(256), primary_key=True)
    position: Mapped[int]
    dataset_id: Mapped[str] = mapped_column(String(256))
    job_name: Mapped[str] = mapped_column(String(63))
    attempt: Mapped[int]
    """The attempt of the evaluation in which it ran last."""
    engine_config: Mapped[dict[str, Any] | None]
    status: Mapped[str] = mapped_column(String(16))
    phase: Mapped[str | None] = mapped_column(String(32))
    questions_done: Mapped[int] = mapped_column(BigInteger)
    questions_total: Mapped[int] = mapped_column(BigInteger)
    error: Mapped[dict[str, Any] | None]
    result_sha256: Mapped[str | None] = mapped_column(String(64))
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    duration_seconds: Mapped[float | None]


class ScoreRow(Base):
    """One number of a run."""

    __tablename__ = "scores"

    eval_id: Mapped[str] = mapped_column(ForeignKey("evaluations.eval_id", ondelete="CASCADE"), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(256), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    dataset: Mapped[str] = mapped_column(String(256))
    version: Mapped[str] = mapped_column(String(64))
    metric: Mapped[str] = mapped_column(String(256))
    mode: Mapped[str] = mapped_column(String(64))
    score: Mapped[float]


class EventRow(Base):
    """One notification to one topic: the outbox, and the memory of what was told."""

    __tablename__ = "events"
    __table_args__ = (
        Index("events_once", "eval_id", "event_id", "topic", unique=True),
        Index("events_pending", "published_at", "eval_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    eval_id: Mapped[str] = mapped_column(ForeignKey("evaluations.eval_id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(String(64))
    event: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    topic: Mapped[str] = mapped_column(String(256))
    message: Mapped[str] = mapped_column(Text)
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    claimed_at: Mapped[datetime | None]
    """When somebody began to publish it; a claim that is old was left by a process that died."""
    published_at: Mapped[datetime | None]
    """When the broker had it; of one in doubt, when it was given up."""
    in_doubt: Mapped[bool]
    """Nobody can know whether the broker has it, and it must not come twice."""


class TimelineRow(Base):
    """One thing that happened to an evaluation, once or several times."""

    __tablename__ = "timeline"
    __table_args__ = (Index("timeline_in_order", "eval_id", "sequence", unique=True),)

    eval_id: Mapped[str] = mapped_column(ForeignKey("evaluations.eval_id", ondelete="CASCADE"), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Digest of what makes two happenings the same one."""
    sequence: Mapped[int]
    """Place among the entries of this evaluation; a happening that repeats moves to the end."""
    kind: Mapped[str] = mapped_column(String(16))
    title: Mapped[str] = mapped_column(String(256))
    message: Mapped[str] = mapped_column(Text)
    run_id: Mapped[str | None] = mapped_column(String(256))
    reason: Mapped[str | None] = mapped_column(String(256))
    actor: Mapped[str | None] = mapped_column(String(256))
    count: Mapped[int]
    first_at: Mapped[datetime]
    at: Mapped[datetime]
