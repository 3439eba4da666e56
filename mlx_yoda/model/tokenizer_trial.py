"""A stranger's tokenizer and chat template, tried in a process of its own before they are used.

Both can take all of the memory in one call that nothing can interrupt: `{{ 'a' * 10 ** 10 }}`, or
a normalizer that replaces each letter by a hundred, five times over.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlx_yoda import files
from mlx_yoda.child import python_command, python_environment
from mlx_yoda.errors import UserError

_SECONDS = 20  # of processor time
_MEMORY = 2 << 30  # bytes
_POLL = 0.05  # seconds
_OUT_OF_MEMORY = 3  # the exit code of a trial that could still say so
_KILLED = (-signal.SIGABRT, -signal.SIGKILL, -signal.SIGXCPU)  # by Rust, by us, by the time limit
_CHAT = [
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": "Fine, thank you."},
]


def try_tokenizer(folder: Path) -> None:
    """Render and tokenise a short chat with what is in a model folder, under limits.

    A trial that ends well is remembered in the user's cache, by the content of the files. What
    else goes wrong in it is left to the real use to say.

    Args:
        folder: with tokenizer.json, tokenizer_config.json, chat_template.jinja, as far as they
            are there.

    Raises:
        UserError: it takes more than 20 s of processor time, or 2 GB of memory.
    """
    passed = _passed(folder)
    with suppress(OSError):
        if passed is not None and passed.is_file():
            return
    program = f"from {__name__} import trial; trial()"
    trial = subprocess.Popen(
        python_command(program, folder, _SECONDS, _MEMORY),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=python_environment(TOKENIZERS_PARALLELISM="false"),
        start_new_session=True,  # Ctrl-C is for the master
    )
    try:
        code = _ended(trial)
    finally:
        trial.kill()
        trial.wait()
    if code in (_OUT_OF_MEMORY, *_KILLED):
        raise UserError(
            f"the chat template or the tokenizer in {folder} takes more than {_SECONDS} s or "
            f"{_MEMORY / 2**30:g} GB for a chat of two lines; it is not used. Take these files "
            "from the model's own publisher."
        )
    if passed is not None:
        with suppress(OSError, UserError):  # then it is tried again next time
            passed.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(passed, "")


def _passed(folder: Path) -> Path | None:
    """Where it is noted that these files have passed their trial; None if nowhere."""
    seen = hashlib.sha256()
    try:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            path = folder / name
            seen.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
        return files.cache_folder() / "tokenizers" / seen.hexdigest()[:32]
    except (OSError, UserError):
        return None


def _ended(trial: "subprocess.Popen[bytes]") -> int:
    """Its exit code, once it has ended or was killed for its memory."""
    while (code := trial.poll()) is None:
        if sys.platform != "linux" and _resident(trial.pid) > _MEMORY:  # no RLIMIT_AS on macOS
            trial.kill()
        time.sleep(_POLL)
    return code


def _resident(process: int) -> int:
    """Its bytes in memory, by `ps`, as every Unix has it."""
    with suppress(OSError, ValueError):
        shown = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True)
        return int(shown.stdout) << 10
    return 0


# What follows runs in the process of the trial, which imports neither MLX nor Transformers.


def _templates(folder: Path) -> list[str]:
    """Every chat template that the folder has."""
    found = []
    with suppress(OSError, ValueError):
        found.append((folder / "chat_template.jinja").read_text(encoding="utf-8"))
    with suppress(OSError, ValueError):
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
        named = config.get("chat_template") if isinstance(config, dict) else None
        listed = named if isinstance(named, list) else [{"template": named}]
        texts = [entry.get("template") for entry in listed if isinstance(entry, dict)]
        found += [text for text in texts if isinstance(text, str)]
    return found


def _render(template: str, messages: list[dict[str, str]]) -> str:
    """The chat in a template, much as Transformers renders it; where it fails, its words."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def fail(message: str) -> None:
        raise ValueError(message)

    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    extensions = ["jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(extensions=extensions, **options)
    environment.filters["tojson"] = json.dumps
    environment.globals |= {"raise_exception": fail, "strftime_now": time.strftime}
    template = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    variables = {"bos_token": "", "eos_token": "", "pad_token": "", "unk_token": ""}
    more = {"add_generation_prompt": messages[-1]["role"] == "user", **variables}
    try:
        return environment.from_string(template).render(messages=messages, **more)
    except MemoryError:
        raise
    except Exception:
        return " ".join(message["content"] for message in messages)


def trial() -> None:
    """Try a folder under limits in seconds and bytes, all from `sys.argv`; they end the process."""
    import resource

    from tokenizers import Tokenizer

    folder, (seconds, memory) = Path(sys.argv[1]), map(int, sys.argv[2:])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        texts = [_CHAT[0]["content"]]
        for template in _templates(folder):
            texts += [_render(template, _CHAT[:1]), _render(template, _CHAT)]
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            for text in texts:
                tokenizer.encode(text)
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
