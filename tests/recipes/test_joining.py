"""How what ends one process ends the others, and with which exit code."""

import signal

import pytest

from mlx_yoda.errors import SaidAlready, UserError
from mlx_yoda.recipes import joining
from mlx_yoda.recipes.interruption import Interrupted
from mlx_yoda.train.group import Group

TOKEN = "hf_" + "aB3" * 11 + "Z"


class Heard(Group):
    """One of two processes, and what it tells the other one."""

    def __init__(self, rank: int) -> None:
        super().__init__(rank, 2)
        self.told: list[object] = []

    def leave(self) -> None:
        self.told.append("leave")

    def fail(self, words: str, code: int) -> bool:
        self.told.append((words, code))
        return not self.leads


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, "leave"),
        (Interrupted(signal.SIGTERM, 3), "leave"),  # all have stopped after that step
        (Interrupted(signal.SIGTERM), ("stopped by SIGTERM", 143)),
        (KeyboardInterrupt(), ("stopped by SIGINT", 130)),
        (UserError("no rows"), ("no rows", 2)),
        (ValueError("a fault\nand more"), ("ValueError: a fault", 1)),
    ],
    ids=repr,
)
def test_the_others_hear_how_a_process_ends(monkeypatch, rank, error, told):
    group = Heard(rank)
    monkeypatch.setattr(joining, "join", lambda end: group)
    kinds = (SaidAlready,) if rank and isinstance(error, UserError) else (type(error),)
    try:
        with joining.joined() as found:
            assert found is group
            if error:
                raise error
    except BaseException as raised:
        assert type(raised) in kinds
        assert str(raised) == str(error)
    else:
        assert error is None
    assert group.told == [told]


def test_the_last_words_are_one_line_without_secrets(monkeypatch, capfd):
    codes = []
    monkeypatch.setattr(joining.os, "_exit", codes.append)
    joining._end(f"the Hub refuses\n{TOKEN}: {'x' * 3000}", 143)
    joining._end("", 2)  # the first process has said it
    said = capfd.readouterr().err
    assert codes == [143, 2]
    assert said.startswith("error: the Hub refuses")
    assert TOKEN not in said
    assert said.count("\n") == 1
    assert len(said) < 1600
