"""Time as an argument, so that tests own it."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Answers Unix seconds."""

system_clock: Clock = time.time
