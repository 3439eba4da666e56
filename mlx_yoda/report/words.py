"""Events in words, and numbers as people write them."""

from mlx_yoda.report.events import (
    Evaluated,
    Event,
    Finished,
    Generated,
    Noted,
    Sampled,
    Saved,
    Started,
    Stepped,
    Working,
)


def describe(event: Event) -> str:
    """An event in one line (two for the start)."""
    match event:
        case Started():
            return _start(event)
        case Working():
            return f"{event.what} …"
        case Stepped():
            width = len(str(event.total_steps))
            return f"step {event.step:{width}}/{event.total_steps}  {_figures(event)}"
        case Evaluated():
            return (
                f"step {event.step}: held-out loss {event.eval_loss:.4f}, "
                f"perplexity {event.eval_perplexity:.3f}{_scores(event)}"
            )
        case Sampled():
            question, said = one_line(event.sample.prompt), one_line(event.sample.answer)
            return f"step {event.step}: {question} → {said}"
        case Generated():
            return (
                f"{event.when} training: exact match {event.exact_match:.3f}, "
                f"chrF {event.chrf:.1f} on {event.rows} held-out rows"
            )
        case Saved():
            return f"step {event.step}: saved {event.path}"
        case Noted():
            return f"note: {event.message}"
        case Finished():
            tokens = f"{event.input_tokens:,} tokens"
            return (
                f"{event.step} steps in {duration(event.train_runtime)}, {tokens}, "
                f"mean loss {event.train_loss:.4f}"
            )
    raise TypeError(f"there are no words for {event!r}")


def count(number: int) -> str:
    """A number of parameters: 684,032, 12.58 M, 3.83 B."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.2f} {letter}"
    return f"{number:,}"


def size(number: int) -> str:
    """A number of bytes: 512 B, 4.2 MB, 7.6 GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} B"


def memory_size(number: int) -> str:
    """Bytes of memory: 2.50 GB, or 60.1 MB where hundredths of a gigabyte say too little."""
    return f"{number / 1e9:.2f} GB" if number >= 10**8 else f"{number / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Seconds as 9.3 s, 4:05 min or 2:04:05 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def one_line(text: str, limit: int = 200) -> str:
    """Any text a model may have said, fit for a line on a terminal."""
    line = " ".join(text.split())
    line = "".join(char if char.isprintable() else "�" for char in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def speed(event: Stepped) -> str:
    """Tokens a second: all of them, and those that carry loss."""
    every, some = event.input_tokens_per_second, event.supervised_tokens_per_second
    return f"{every:,.0f} tok/s ({some:,.0f} supervised)"


def _start(event: Started) -> str:
    share = 100 * event.trainable_parameters / event.total_parameters
    held_out = f", {event.validation_rows:,} held out" if event.validation_rows else ""
    rows, several = event.rows_per_step, event.processes or 1
    parts = -(-rows // (event.micro_batch * several))
    split = f" in {parts} micro-batches of {event.micro_batch}" if parts > 1 else ""
    if several > 1:
        split = f" on {several} processes{f', each{split}' if split else ''}"
    return (
        f"{event.trainable_parameters:,} trainable parameters of "
        f"{count(event.total_parameters)} ({share:.2f} %)\n"
        f"{event.train_rows:,} training rows{held_out}; {event.total_steps:,} steps of "
        f"{rows} rows{split}, {event.epochs:.4g} epochs"
    )


def _figures(event: Stepped) -> str:
    return (
        f"loss {event.loss:.4f}  lr {event.learning_rate:.2e}  {speed(event)}  "
        f"{memory_size(event.peak_memory)}"
    )


def _scores(event: Evaluated) -> str:
    words = ""
    if event.eval_exact_match is not None:
        words += f", exact match {event.eval_exact_match:.3f}"
    if event.eval_chrf is not None:
        words += f", chrF {event.eval_chrf:.1f}"
    return words
