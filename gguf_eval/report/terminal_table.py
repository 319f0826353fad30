"""The main table in a terminal: which columns go when it is narrow, and how cells look there."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from gguf_eval.errors import UsageError, nearest
from gguf_eval.report import tables
from gguf_eval.report.columns import LEVEL, STAYS, TASKS, Cell
from gguf_eval.report.main_table import Filled, MainTable
from gguf_eval.report.tables import VERDICT_STYLES, width_of


def chosen(table: MainTable, keys: Sequence[str]) -> list[Filled]:
    """The columns the user names, in that order; ``tasks`` means every task."""
    picked: list[Filled] = []
    for key in keys:
        found = [filled for filled in table.columns if key in (filled.column.key, filled.column.kind)]
        if not found:
            known = [filled.column.key for filled in table.columns]
            raise UsageError(f"--columns: no column '{key}'{nearest(key, known)}; there are: {', '.join(known)}, tasks")
        picked += [filled for filled in found if filled not in picked]
    return picked


def fitting(table: MainTable, width: int, *, complete: bool) -> list[Filled]:
    """The columns left when the least telling ones have gone until the table fits; with ``complete`` only tasks go."""
    left = list(table.columns)
    for leaves in sorted({filled.column.leaves for filled in left} - {STAYS}):
        if width_of(printed(table, left)) <= width:
            break
        left = [f for f in left if f.column.leaves != leaves or (complete and f.column.kind != TASKS)]
    return left


def printed(table: MainTable, columns: Sequence[Filled]) -> list[tables.TableColumn]:
    """These of its columns as the terminal shows them."""
    return [_levels(table) if filled.column is LEVEL else _figures(filled) for filled in columns]


def _figures(filled: Filled) -> tables.TableColumn:
    """The star of the best has a place of its own, which stays empty elsewhere."""
    place = "" if filled.column.best is None else " "
    cells = [_cell(cell, place) for cell in filled.cells]
    return tables.TableColumn(filled.column.header + place, cells, "left" if filled.column.to_left else "right")


def _cell(cell: Cell, place: str) -> Text:
    text = Text(f"{cell.text}*", style="bold") if cell.best else Text(cell.text + place)
    if cell.verdict:
        text.append(f"{' ' * bool(cell.text)}{cell.verdict}", style=VERDICT_STYLES.get(cell.verdict, "dim"))
    return text.append(f"\n{cell.small}{place}", style="not bold dim") if cell.small else text


def _levels(table: MainTable) -> tables.TableColumn:
    cells = []
    for point in table.rows:
        mark = {"failed": "✗ ", "partial": "… ", "complete": "◆ " if point.id in table.front else "  "}[point.status]
        style = "dim" if point.status == "failed" else "bold" if point.id in table.front else ""
        cells.append(Text(mark + point.label, style=style))
    return tables.TableColumn(f"  {LEVEL.header}", cells, "left")
