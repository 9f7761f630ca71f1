"""What benchmarks print: tables in Markdown, line by line as they are measured, or all of them as JSON at the end."""

import json


class Report:
    """The tables of one run; a row belongs to the table begun last."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._columns: tuple[str, ...] = ()
        self._tables: list[list[dict[str, str]]] = []

    def table(self, *columns: str) -> None:
        """Begins a table."""
        self._columns = columns
        self._tables.append([])
        self._print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")

    def row(self, *cells: str) -> None:
        """Adds a line to it."""
        self._tables[-1].append(dict(zip(self._columns, cells, strict=True)))
        self._print(f"| {' | '.join(cells)} |")

    def close(self) -> None:
        """Prints what was kept back."""
        if self._as_json:
            print(json.dumps(self._tables, indent=2, ensure_ascii=False))

    def _print(self, text: str) -> None:
        if not self._as_json:
            print(text, flush=True)
