"""Which words are new, and that none is lost."""

from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.report.difference import difference


def joined(pieces):
    return "".join(piece.text + piece.space for piece in pieces)


def changed(pieces):
    return [piece.text for piece in pieces if piece.changed]


def test_words_that_moved_are_marked_on_either_side():
    went, came = difference("You must find the map.", "Find the map, you must.")
    assert changed(went) == ["You must find"]
    assert changed(came) == ["Find", ", you must"]
    assert joined(went) == "You must find the map."


def test_the_same_text_has_no_changes():
    assert not changed(difference("a b", "a b")[1])


@given(st.text(alphabet="ab ,.\n<", max_size=30), st.text(alphabet="ab ,.\n<", max_size=30))
def test_pieces_joined_are_the_texts(old, new):
    went, came = difference(old, new)
    assert (joined(went), joined(came)) == (old, new)
    same = [[p.text for p in side if not p.changed] for side in (went, came)]
    assert "".join("".join(same[0]).split()) == "".join("".join(same[1]).split())
