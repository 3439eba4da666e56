"""Files made to hurt: each is refused in one short sentence, soon."""

import pytest

from mlx_yoda.config.parse import load_config
from mlx_yoda.errors import UserError
from tests.machine import within


def refused(tmp_path, content):
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with within(20), pytest.raises(UserError) as error:
        load_config(file)
    message = str(error.value)
    assert message.startswith(f"{file}")
    assert len(message) < len(str(file)) + 400
    return message


def test_a_bomb_of_aliases_does_not_go_off(tmp_path):
    bomb = "a: &a [x,x]\n" + "".join(
        f"b{i}: &b{i} [*{'a' if not i else f'b{i - 1}'}]\n" for i in range(99)
    )
    assert ":2 is broken YAML: aliases, such as *a" in refused(tmp_path, bomb.encode())
    flat = "lora:\n  target_modules: [&a [" + "a," * 20000 + "]," + "*a," * 20000 + "]"
    assert ":2 is broken YAML: aliases" in refused(tmp_path, flat.encode())
    assert "aliases" in refused(tmp_path, b"lora: &a [*a]")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"- " * 100_000, "nested too deeply"),
        (b"lora: " + b"{a: " * 50_000, "nested too deeply"),
        (b"lora:\n  rank_pattern: {a: {b: {c: {d: 1}}}}", "lora.rank_pattern is nested too deeply"),
        (b"#" * (300 << 10), "has more than 262,144 bytes: is it a configuration?"),
        (b"lora:\n  r: !!int 8", ":2: lora.r: YAML's tags"),
        (b"lora:\n  r: !" + b"x" * 10_000 + b" 8", ":2: lora.r: YAML's tags"),
        (b"lora:\n  r: " + b"9" * 100_000, "lora.r must be a whole number, not 9999"),
        (b"lora:\n  lora_alpha: " + b"9" * 100_000, "lora.lora_alpha must be a finite number"),
        (b"k" * 100_000, ":1: the file must hold keys and values"),
        (b"? " + b"k" * 100_000 + b"\n: 1", "there is no section kkkk"),
        (b"lora:\n  ? " + b"k" * 100_000 + b"\n  : 1", "there is no key lora.kkkk"),
        (b"lora:\n  r: \x00", "broken YAML"),
        (b"lora: \xff", "is not UTF-8 text"),
        (b"\xff\xfel\0o\0r\0a\0", "is not UTF-8 text"),
        (b"lora: {}\n---\nlora: {}", "broken YAML"),
        (b"%YAML " + b"9" * 5000 + b".1\n---\nlora: {}", "broken YAML: Exceeds the limit"),
        (b'lora: {r: "\\UFFFFFFFF"}', "broken YAML"),
    ],
    ids=range(18),
)  # fmt: skip
def test_a_hostile_file_is_one_short_sentence(tmp_path, content, said):
    assert said in refused(tmp_path, content)
