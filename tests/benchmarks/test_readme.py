"""The README's parts that programs write are as they write them."""

import pytest

from benchmarks import chips, macs, reference
from benchmarks.readme import README, replaced

PARTS = {"macs": macs.table, "chips": chips.table, "reference": reference.reference}


@pytest.mark.parametrize("name", PARTS)
def test_what_programs_write_is_current(name):
    readme = README.read_text("utf-8")
    current = replaced(readme, name, PARTS[name]())
    assert readme == current, f"run `python -m benchmarks.{name}`"


def test_only_what_is_between_the_markers_changes():
    readme = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert replaced(readme, "x", "new\n") == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"


@pytest.mark.parametrize("readme", ["", "<!-- x -->\n", "<!-- x -->\n<!-- /x --><!-- /x -->"])
def test_markers_are_there_once(readme):
    with pytest.raises(ValueError, match="once each"):
        replaced(readme, "x", "")
