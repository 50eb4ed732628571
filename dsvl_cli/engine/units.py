"""Sizes as people read them."""

from __future__ import annotations


def format_bytes(count: int) -> str:
    """Write a size in decimal units, as drives and hubs count: `4.0 GB`, `312 MB`, `9 kB`, `0 bytes`."""
    if count < 1000:
        return f"{count} bytes"
    if count < 999_500:
        return f"{count / 1e3:.0f} kB"
    if count < 999_500_000:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e9:.1f} GB"
