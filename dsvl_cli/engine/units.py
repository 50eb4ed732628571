"""Human-readable sizes."""

from __future__ import annotations


def format_bytes(count: float) -> str:
    """Format a number of bytes in decimal units with at most three digits: `812 B`, `9.4 MB`, `14.7 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
