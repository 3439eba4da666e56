"""The built-in demo: a tiny Phi-3 that answers in plain word order, and sentences to teach it."""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
DATA = Path(__file__).parent / "data"
