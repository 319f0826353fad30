"""Tables in a terminal: their one look, and as many of them as their columns need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = 2
"""Cells between two columns."""
VERDICT_STYLES = {"worse": "red", "better": "green", "same": "green", "undecided": "yellow"}


@dataclass(frozen=True)
class TableColumn:
    """One column, with the cell of every row; cells may have several lines."""

    header: str
    cells: Sequence[Text]
    justify: Literal["left", "right"] = "right"

    @property
    def width(self) -> int:
        """Cells of a terminal that it takes."""
        texts = (self.header, *(cell.plain for cell in self.cells))
        return max(cell_len(line) for text in texts for line in text.split("\n"))


def bare_table() -> Table:
    """A table without lines, for columns of any kind."""
    return Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")


def whole_table(columns: Sequence[TableColumn]) -> Table:
    """A table whose cells are never cut or wrapped where the terminal is wide enough."""
    table = bare_table()
    for column in columns:
        table.add_column(Text(column.header), justify=column.justify, no_wrap=True)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table


def width_of(columns: Sequence[TableColumn]) -> int:
    """Cells of a terminal that a table of these columns takes."""
    return sum(column.width + GAP for column in columns) - GAP


def packed(columns: Sequence[TableColumn], width: int) -> list[Table]:
    """As many tables as the columns need to keep to a width, each beginning with the first column."""
    tables: list[list[TableColumn]] = [[columns[0]]]
    for column in columns[1:]:
        if len(tables[-1]) > 1 and width_of([*tables[-1], column]) > width:
            tables.append([columns[0]])
        tables[-1].append(column)
    return [whole_table(part) for part in tables]


def columns_of(headers: Sequence[str], rows: Sequence[Sequence[Text]]) -> list[TableColumn]:
    """The columns of rows: the first one to the left, figures to the right."""
    cells = list(zip(*rows, strict=True)) or [()] * len(headers)
    return [
        TableColumn(header, column, "right" if number else "left")
        for number, (header, column) in enumerate(zip(headers, cells, strict=True))
    ]


def print_rows(headers: Sequence[str], rows: Sequence[Sequence[Text]], console: Console) -> None:
    """Print rows as `print_columns` does."""
    print_columns(columns_of(headers, rows), console)


def print_columns(columns: Sequence[TableColumn], console: Console) -> None:
    """As tables that keep to a terminal's width; elsewhere as one, however wide."""
    if not console.is_terminal:
        console.width = max(console.width, width_of(columns))
    for table in packed(columns, console.width):
        console.print(table)


def print_lines(lines: Iterable[str | Text], console: Console, style: str = "") -> None:
    """Print sentences, wrapped in a terminal only."""
    for line in lines:
        console.print(Text(line) if isinstance(line, str) else line, style=style, soft_wrap=not console.is_terminal)


def print_warnings(warnings: Iterable[str], console: Console) -> None:
    """Print what has to be looked at twice, a line each."""
    print_lines((f"! {warning}" for warning in warnings), console, "bold yellow")
