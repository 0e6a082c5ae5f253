"""Ways to damage a product."""

from __future__ import annotations

import os
import random

MEMORY = "/proc/self/mem"  # opens, but its first byte cannot be read


def half(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def garbage(path):
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))
