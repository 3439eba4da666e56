"""The recorded terminal: drawn as a terminal would show it, and with no word of ours."""

import xml.etree.ElementTree as ET

from benchmarks.record_demo import PICTURE, picture, run, screen


def text_of(svg):
    return "\n".join("".join(e.itertext()) for e in ET.fromstring(svg).iter() if "text" in e.tag)


def test_what_is_overwritten_is_not_shown():
    lines = screen(b"\x1b[1;32mone\x1b[0m\ntwo\nthree\x1b[1A\r\x1b[2Kfour\n\n\n")
    assert [line.plain for line in lines] == ["one", "four", "three"]
    (span,) = lines[0].spans
    assert (span.start, span.end, span.style.bold, span.style.color.name) == (0, 3, True, "green")


def test_a_command_runs_in_a_terminal(tmp_path):
    said = run("mlx-yoda --version", tmp_path)
    assert said.startswith(b"mlx-yoda 0.")
    assert "mlx-yoda 0." in text_of(picture(screen(said))).replace("\xa0", " ")


def test_the_picture_is_whole_and_asks_the_network_for_nothing():
    svg = PICTURE.read_text("utf-8")
    shown = text_of(svg).replace("\xa0", " ")
    for words in ("mlx-yoda train --config configs/demo.yaml", "Exact match 0.00 →", "you must."):
        assert words in shown
    assert "url(" not in svg.replace("url(#", "")
    assert "/work/" not in svg
    assert "href" not in svg
