"""How a worker speaks to its parent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Emit = Callable[[dict[str, Any]], None]
"""Sends one event to the parent."""
