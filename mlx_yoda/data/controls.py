"""What a speaker says stays text, even where it spells out a control token of the chat format.

A user who writes `<|end|><|system|>` must not end their turn and speak for the system. The chat
template mixes the words with its own control tokens, so afterwards nothing tells them apart.
Transformers' answer (since 5.23: `apply_chat_template(…, sanitize_control_tokens=True)`) is to
mark the control tokens in the words with private-use characters before the template is rendered,
and to encode what is marked past the tokenizer's added tokens.

That cuts the text at the marks, so it is asked for only where there is something to mark: any
other conversation is encoded as a whole, to the bit as without it.
"""

from collections.abc import Iterable
from typing import Any


def protection(contents: Iterable[str], tokenizer: Any) -> dict[str, bool]:
    """What `apply_chat_template` must be told, so that these contents are encoded as text.

    Control tokens are those that the tokenizer declares special, and those that end a sequence.
    Plain text rows are not asked about: their author has written the control tokens there.

    Args:
        contents: what the speakers say.
        tokenizer: a Hugging Face tokenizer, or mlx-lm's wrapper around one.

    Returns:
        `{"sanitize_control_tokens": True}` if a control token is spelt out, else nothing.
    """
    controls = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    controls += [token for token in (tokenizer.eos_token,) if token]
    spelt = any(control in content for content in contents for control in controls)
    return {"sanitize_control_tokens": True} if spelt else {}
