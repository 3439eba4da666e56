"""Measurements, and the tools they need; run from the repository's root with `python -m`."""
