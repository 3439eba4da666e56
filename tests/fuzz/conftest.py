"""Inputs made to break things: any of them gives a value or one sentence, and soon.

`FUZZ_EXAMPLES=20000 python -m pytest tests/fuzz` tries more than the usual few hundred each.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mlx_yoda.errors import UserError
from tests.machine import check_time

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
SECONDS = 10  # of processor time that one input may take on a usual machine
TRIED: Counter[str] = Counter()

fuzzing = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture,
        HealthCheck.large_base_example,
    ],
)  # fmt: skip

# What JSON and YAML can hold, and what they should not.
odd = st.sampled_from(
    ["", "a\0b", "\x1b[2J", "../..", "x" * 3000, "\ud800", "(.|..|...)*[^a-z]", "[", "NaN", "~"]
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | odd
    | st.sampled_from([10**400, -(2**63), 2**31, 1e308, 5e-324])
)  # fmt: skip
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | odd, inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def mutated(draw: Callable[..., Any], contents: Any) -> bytes:
    """Some bytes of one of the contents changed, cut out, put in or doubled."""
    content = bytearray(draw(contents))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.sampled_from([0, 1, 1, 1, 2, 8, 100]))
        new = draw(
            st.binary(max_size=8)
            | st.sampled_from([b"\0", b"\xff", b"[" * 3000, b"9" * 5000, b'"', b"\n", b"{", b"NaN"])
            | st.just(bytes(content[at : at + 200]) * 2)
        )
        content[at : at + length] = new
    return bytes(content)


def survives(kind: str, function: Callable[[], Any], *, again: bool = False) -> Any:
    """Call a function that may give a value or raise a UserError, in time; give the value.

    Args:
        kind: what is tried, to be counted.
        function: tries it.
        again: the same input in another way, which does not count.
    """
    TRIED[kind] += not again
    start = time.process_time()
    try:
        return function()
    except UserError as error:
        assert 0 < len(str(error)) < 5000
        return None
    finally:
        check_time(time.process_time() - start, SECONDS, time.process_time)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many inputs were tried."""
    if TRIED:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(TRIED.items()))
        terminalreporter.write_line(f"inputs tried: {counts}; {sum(TRIED.values()):,} in all")
