"""Sizes of memory as people write and read them: GB counts in thousands, as disks and reports do, GiB in 1024s."""

from __future__ import annotations

import re

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}  # fmt: skip
_MOST_DIGITS = 6
"""Of a number that people type."""


def parse_size(text: str) -> int | None:
    """Bytes of a size such as ``800MB``, ``6G`` (the same as 6GB) or ``5.5GiB``; None where it is none, or nothing."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if not match or (match[3] and not match[2]):
        return None
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " ")) or None


def limit_text(size_bytes: int) -> str:
    """A limit in the unit in which it is a round number, the one it was typed in: ``6 GB``, ``6 GiB``, ``800 MB``.

    One that is round in none, such as a machine's memory, is rounded to a tenth of a gigabyte.
    """
    exact = []
    for unit, factor in _UNITS.items():
        number = f"{size_bytes / factor:.3f}".rstrip("0").rstrip(".")
        if size_bytes >= factor and round(float(number) * factor) == size_bytes:
            exact.append((len(number.replace(".", "")), -factor, f"{number} {unit}"))
    digits, _, text = min(exact)
    return text if digits <= _MOST_DIGITS else size_text(size_bytes)


def short_of_room(needed_bytes: int, spare_bytes: int, free_bytes: int) -> str:
    """What is needed of a disk and what is free, the spare named; empty where it is enough.

    ``spare_bytes`` must stay free beside what is needed, for what nobody foretells to the byte.
    """
    if free_bytes >= needed_bytes + spare_bytes:
        return ""
    needed, spare, free = (f"{size / 1e6:,.1f} MB" for size in (needed_bytes + spare_bytes, spare_bytes, free_bytes))
    return f"{needed} of disk are needed ({spare} of them to spare), {free} are free"


def size_text(size_bytes: int) -> str:
    """A size for sentences: to a tenth of a gigabyte, or a megabyte."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
