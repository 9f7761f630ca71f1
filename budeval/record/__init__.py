"""The record: what was asked, what happened and what was told. Outlives the workflow's retention."""

from budeval.record.record import Record

__all__ = ["Record"]
