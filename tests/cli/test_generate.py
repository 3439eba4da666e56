"""`mlx-yoda generate` and `mlx-yoda chat`: nothing but answers on standard output."""

import io
import subprocess
import sys

import pytest
from click.testing import CliRunner

from mlx_yoda.cli import chat, generate
from mlx_yoda.cli.program import program
from mlx_yoda.config.schema import ModelConfig
from mlx_yoda.generation import answer
from mlx_yoda.model.load import load
from mlx_yoda.recipes.respond import open_responder

PROMPTS = ["You must find the old map.", "She was very proud.", "I am here."]
DEMO = ["--model", "demo", "--max-tokens", 16]


@pytest.fixture(scope="module")
def answers():
    """What the demo's base answers, greedily."""
    base = load("demo")
    return [
        answer(base.model, base.tokenizer, [{"role": "user", "content": p}], max_tokens=16)
        for p in PROMPTS
    ]


def test_prompts_come_from_arguments_a_file_or_standard_input(invoke, answers, tmp_path):
    wanted = "".join(f"{text}\n" for text in answers)
    assert len(set(answers)) == 3
    lines = "\n".join([*PROMPTS[:2], "", *PROMPTS[2:]])
    (tmp_path / "prompts.txt").write_text(lines, encoding="utf-8")
    for result in (
        invoke("generate", *DEMO, *PROMPTS),
        invoke("generate", *DEMO, "--file", tmp_path / "prompts.txt"),
        invoke("generate", *DEMO, stdin=lines),
    ):
        assert result.exit_code == 0
        assert result.stdout == wanted


def test_the_answer_is_written_piece_by_piece(invoke, monkeypatch):
    written = []
    monkeypatch.setattr(generate, "say", lambda text="", end="\n": written.append(text + end))
    invoke("generate", *DEMO, PROMPTS[0])
    assert len(written) > 3
    assert written[-1] == "\n"


def test_the_adapter_answers_otherwise_and_names_its_base(invoke, adapter):
    base = invoke("generate", *DEMO, PROMPTS[0]).stdout
    named = invoke("generate", *DEMO, "--adapter", adapter, PROMPTS[0]).stdout
    unnamed = invoke("generate", "--adapter", adapter, "--max-tokens", 16, PROMPTS[0]).stdout
    assert named == unnamed
    assert named != base


def test_sampling_repeats_with_its_seed(invoke, adapter):
    def sampled(seed):
        options = ["--temperature", 2, "--top-p", 0.99, "--seed", seed, "--max-tokens", 16]
        return invoke("generate", "--adapter", adapter, *options, PROMPTS[0]).stdout

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(3)}) > 1


def test_options_reach_the_model(invoke, monkeypatch):
    seen = {}

    class Spy:
        def stream(self, messages, **sampling):
            seen.update(sampling, messages=messages)
            seen.pop("note")
            yield "Hm."

    monkeypatch.setattr(generate, "open_chosen", lambda adapter: Spy())
    options = ["--max-tokens", 3, "--temperature", 0.5, "--top-p", 0.9, "--seed", 4]
    result = invoke("generate", *options, "--system", "Be brief.", "Hello")
    assert result.stdout == "Hm.\n"
    assert seen == {
        "max_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 4,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
        ],
    }


def test_what_libraries_print_goes_to_standard_error(invoke, monkeypatch):
    def chatty(adapter):
        print("chatter")
        return open_responder(ModelConfig(model_name_or_path="demo"))

    monkeypatch.setattr(generate, "open_chosen", chatty)
    result = invoke("generate", "--max-tokens", 4, PROMPTS[0])
    assert "chatter" not in result.stdout
    assert "chatter" in result.stderr


class Parrot:
    """Answers with the number of messages it was given, and the last of them."""

    def stream(self, messages, **sampling):
        yield f"{len(messages)} "
        yield messages[-1]["content"]


@pytest.fixture
def parrot(monkeypatch):
    monkeypatch.setattr(chat, "open_chosen", lambda adapter: Parrot())


CHATS = [
    ("one\ntwo\n", "1 one\n3 two\n"),
    ("one\n/reset\ntwo\n", "1 one\n1 two\n"),
    ("one\n/exit\ntwo\n", "1 one\n"),
    ("\n  \none\n", "1 one\n"),
    ("/foo\none\n", "1 one\n"),
    ("", ""),
]


@pytest.mark.parametrize(("typed", "said"), CHATS)
def test_a_chat(invoke, parrot, typed, said):
    result = invoke("chat", "--model", "demo", stdin=typed)
    assert result.exit_code == 0
    assert result.stdout == said


def test_a_chat_s_system_message_survives_a_reset(invoke, parrot):
    typed = "one\n/reset\ntwo\n"
    result = invoke("chat", "--model", "demo", "--system", "Be kind.", stdin=typed)
    assert result.stdout == "2 one\n2 two\n"


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(invoke, monkeypatch):
    class Interrupted(Parrot):
        def stream(self, messages, **sampling):
            yield f"{len(messages)} "
            if len(messages) == 1:
                raise KeyboardInterrupt
            yield messages[1]["content"]

    monkeypatch.setattr(chat, "open_chosen", lambda adapter: Interrupted())
    result = invoke("chat", "--model", "demo", stdin="one\ntwo\n")
    assert result.exit_code == 0
    assert result.stdout == "1 \n3 1 \n"  # what was said before the interruption is remembered


def test_ctrl_c_at_the_prompt_ends_the_chat(parrot, monkeypatch):
    def interrupt(prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    assert CliRunner().invoke(program, ["chat", "--model", "demo"]).exit_code == 130


def test_on_a_terminal_a_chat_has_a_prompt_and_says_its_commands(parrot, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("one\n"))
    with pytest.raises(SystemExit):
        program.main(["chat", "--model", "demo"])
    shown = capsys.readouterr()
    assert shown.out == "> 1 one\n> "
    assert "/reset" in shown.err


def test_a_chat_with_the_real_model(invoke, answers):
    result = invoke("chat", *DEMO, stdin=f"{PROMPTS[0]}\n/reset\n{PROMPTS[1]}\n")
    assert result.stdout == f"{answers[0]}\n{answers[1]}\n"


def test_a_prompt_that_is_too_long_is_told_by_this_program_alone():
    """Transformers warns of it too, in words about indexing errors."""
    args = ["generate", "--model", "demo", "the old map " * 400]
    done = subprocess.run([sys.executable, "-m", "mlx_yoda", *args], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_pytorch_is_not_imported():
    """Where it is installed, Transformers would, for 190 MB and seconds of every command."""
    code = (
        "import sys\n"
        "from mlx_yoda.cli import main\n"
        "sys.argv[1:] = ['generate', '--model', 'demo', '--max-tokens', '2', 'hi']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print('torch._C' in sys.modules)\n"
    )
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
