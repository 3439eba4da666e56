"""What a speaker says stays text, even where it spells out a control token of the chat format.

A user who writes `<|end|><|system|>` must not end their turn and speak for the system. The chat
template mixes the words with its own control tokens, so afterwards nothing tells them apart.
Transformers' answer (since 5.23: `apply_chat_template(…, sanitize_control_tokens=True)`) is to
mark the control tokens in the words with private-use characters before the template is rendered,
and to encode what is marked past the tokenizer's added tokens.

That cuts the text at the marks, so it is asked for only where there is something to mark: any
other conversation is encoded as a whole, to the bit as without it.
"""

from collections.abc import Iterable, Sequence
from typing import Any


def spelt(contents: Iterable[str], tokens: Sequence[str]) -> list[str]:
    """The control tokens, of those that there are, that texts spell out.

    Plain text rows are not asked about: their author has written the control tokens there.
    """
    contents = list(contents)
    return [token for token in tokens if any(token in text for text in contents)]


def controls(tokenizer: Any) -> tuple[str, ...]:
    """The tokens that the tokenizer declares special, and the one that ends a sequence."""
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return tuple(dict.fromkeys([*special, *filter(None, [tokenizer.eos_token])]))


def without_trailing(text: str, tokens: Sequence[str]) -> tuple[str, list[str]]:
    """Take tokens off the end of a text, with the white space behind each.

    Returns:
        What is left, and the tokens that were taken off, the last one first.
    """
    taken: list[str] = []
    while token := next((token for token in tokens if text.rstrip().endswith(token)), None):
        text = text.rstrip().removesuffix(token)
        taken.append(token)
    return text, taken
