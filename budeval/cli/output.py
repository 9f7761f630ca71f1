"""What the user sees: tables on a terminal, tab-separated lines in a pipe, JSON where it is asked for."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

STATUS_STYLES = {
    "COMPLETED": "green",
    "Succeeded": "green",
    "ok": "green",
    "met": "green",
    "RUNNING": "cyan",
    "Running": "cyan",
    "STARTED": "cyan",
    "FAILED": "red",
    "Failed": "red",
    "Missing": "red",
    "failed": "red",
    "not met": "red",
    "TERMINATED": "yellow",
    "warning": "yellow",
}


def shown(text: str) -> str:
    """Text of others without characters that a terminal would obey."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


class Output:
    """Standard output for results and standard error for everything else."""

    def __init__(self) -> None:
        self.json = False
        """Whether ``--json`` was given."""
        self.console = Console(highlight=False, markup=False, emoji=False)
        self._errors = Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def terminal(self) -> bool:
        """Whether a person sees it, on a terminal that can move its cursor."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def data(self, value: Any, *, one_line: bool = False) -> None:
        """A value as JSON, models and lists of models included."""
        self.raw(shown(json.dumps(_plain(value), ensure_ascii=False, indent=None if one_line else 2)))

    def raw(self, text: str) -> None:
        """A document as it is."""
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()

    def line(self, text: str, style: str = "") -> None:
        """One line; never wrapped in a pipe."""
        if self.console.is_terminal:
            self.console.print(Text(shown(text), style), soft_wrap=True)
        else:
            self.raw(shown(text))

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table; in a pipe one line for each row, columns separated by tabs, with a line of headers."""
        if self.console.is_terminal:
            self.console.print(rich_table(headers, rows))
            return
        self.raw("\t".join(headers).upper())
        for row in rows:
            self.raw("\t".join(shown(cell).replace("\n", " ") for cell in row))

    def note(self, text: str, style: str = "dim") -> None:
        """Something beside the result."""
        self._errors.print(Text(shown(text), style), soft_wrap=True)

    def error(self, text: str, advice: str = "", details: dict[str, Any] | None = None) -> None:
        """Why it did not work, and what to do."""
        if self.json:
            told = {"message": shown(text), "advice": advice or None, **(details or {})}
            sys.stderr.write(json.dumps({"error": told}, ensure_ascii=False) + "\n")
            return
        self._errors.print(Text(f"error: {shown(text)}", "red"), soft_wrap=True)
        if advice:
            self._errors.print(Text(advice), soft_wrap=True)


def rich_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table without lines; words that are statuses get their colour."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, header in enumerate(headers):
        # The first column is what the others are about, such as an id that somebody copies.
        table.add_column(header, no_wrap=place == 0, overflow="ignore" if place == 0 else "fold")
    for row in rows:
        table.add_row(*(Text(shown(cell), STATUS_STYLES.get(cell, "")) for cell in row))
    return table


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_plain(item) for item in value] if isinstance(value, list) else value
