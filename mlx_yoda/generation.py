"""Answers of a model, with or without an adapter in it."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator, generate_step, generation_stream, wired_limit
from mlx_lm.sample_utils import Sampler, apply_top_p, greedy_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_yoda.adapters.peft import Adapter
from mlx_yoda.config.lora_names import matches_target
from mlx_yoda.config.sampling import Sampling
from mlx_yoda.data.columns import Conversation
from mlx_yoda.data.messages import Message, read_messages, read_tools
from mlx_yoda.data.template import TemplatedChat
from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import install
from mlx_yoda.lora.inject import inject, linear_layers
from mlx_yoda.lora.layer import LoRALinear, linear_shape
from mlx_yoda.model.family import expecting
from mlx_yoda.model.piece import Piece

Messages = Sequence[Message]  # [{"role": …, "content": …}, …]
Tools = Sequence[Mapping[str, Any]]  # JSON schemas of what the model may call
Note = Callable[[str], None]
T = TypeVar("T")


def attach(model: nn.Module, adapter: Adapter) -> dict[str, LoRALinear]:
    """Put a stored adapter into its base, where it answers until `lora.inject.remove`.

    Raises:
        UserError: the adapter was made for another model.
    """
    check_fit(model, adapter)
    layers = inject(model, adapter.lora, mx.random.key(0), list(adapter.tensors))
    install(layers, adapter.weights())
    return layers


def check_fit(model: nn.Module, adapter: Adapter) -> None:
    """Hold an adapter's tensors against a model.

    As in PEFT, its configuration may name modules that the model does not have.

    Args:
        model: the base; of its weights only those are read that the adapter has copies of.
        adapter: a stored one.

    Raises:
        UserError: the adapter was made for another model.
    """
    linear = linear_layers(model)
    for path, (a, b) in adapter.tensors.items():
        if path not in linear:
            raise UserError(
                f"the model has no linear layer {path}: the adapter was made for another model."
            )
        wanted = linear_shape(linear[path])
        if (b.shape[0], a.shape[1]) != wanted:
            raise UserError(
                f"the adapter's weights {a.shape} and {b.shape} for {path} do not fit the model's "
                f"{wanted}: the adapter was made for another model."
            )
        magnitude = adapter.magnitudes.get(path)
        if magnitude is not None and magnitude.shape != (wanted[0],):
            raise UserError(
                f"the adapter's magnitudes {magnitude.shape} for {path} do not fit the model's "
                f"{wanted[0]} rows: the adapter was made for another model."
            )
    for path in linear:
        if path not in adapter.tensors and matches_target(path, adapter.lora):
            raise UserError(
                f"the adapter has no weights for {path}, which it targets: it was made for another "
                "model or is cut short."
            )
    for name, copy in adapter.base_weights.items():
        _check_copy(model, name, copy)


def _check_copy(model: nn.Module, name: str, copy: mx.array) -> None:
    """Refuse an adapter that has changed a weight of the base, such as a resized embedding."""
    path, _, kind = name.rpartition(".")
    module = dict(model.named_modules()).get(path)
    own = None if module is None else module.get(kind)
    packed = module is not None and "scales" in module and kind == "weight"
    same = _is_packed_copy if packed else _is_copy
    if module is None or own is None or not same(module, own, copy):
        raise UserError(
            f"the adapter brings its own {name}, which is not the model's: the base was changed "
            "in training or is another one, and such adapters are not supported here."
        )


_HALVES = (mx.bfloat16, mx.float16)


def _is_copy(_: nn.Module, own: mx.array, copy: mx.array) -> bool:
    """Whether a float32 copy is the weight, perhaps as it was loaded in half precision."""
    roundings = (own.astype(dtype).astype(mx.float32) for dtype in _HALVES)
    return bool(mx.array_equal(own, copy.astype(own.dtype)).item()) or any(
        mx.array_equal(one, copy).item() for one in roundings
    )


def _is_packed_copy(module: nn.Module, own: mx.array, copy: mx.array) -> bool:
    """Whether quantising a float32 copy as the module's weight was gives that weight."""
    if copy.ndim != 2 or copy.shape[1] % module.group_size:
        return False
    packing = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
    # What dtype it had before is not known.
    dtypes = (*_HALVES, mx.float32)
    packed = (mx.quantize(copy.astype(dtype), **packing)[0] for dtype in dtypes)
    return any(mx.array_equal(own, one).item() for one in packed)


def pieces(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    messages: Messages,
    *,
    tools: Tools | None = None,
    note: Note = lambda text: None,
    **options: Any,
) -> Iterator[Piece]:
    """Yield the answer to a conversation piece by piece, with its tokens and how it ends.

    Args:
        model: an mlx-lm model that `model.load` has loaded.
        tokenizer: its tokenizer; the answer ends before any of its `eos_token_ids`.
        messages: the conversation up to and with the user's turn.
        tools: what the model may call, as the chat template shows it.
        note: is told what the user should know of the answer, in a sentence.
        **options: as `config.sampling.Sampling`.

    Raises:
        UserError: an option is out of its range, the chat template refuses the conversation, or
            the model has no room or no rows for its tokens.
    """
    sampling = Sampling(**options)
    prompt = prompt_tokens(tokenizer, messages, tools)
    room = model.limits.room(prompt, tokenizer)
    most = min(sampling.max_tokens, room)
    if sampling.seed is not None:
        mx.random.seed(sampling.seed)
    detokenizer = tokenizer.detokenizer
    for count, token in enumerate(
        _quiet(token_ids(model, prompt, most, make_sampler(sampling))), 1
    ):
        reason: Literal["stop", "length"] | None = "length" if count == most else None
        if token in tokenizer.eos_token_ids:
            reason = "stop"
        else:
            _add(token, detokenizer, tokenizer)
        if reason:
            detokenizer.finalize()
        if reason == "length" and count == room:
            note(
                f"The answer ends here: all {len(prompt) + room:,} positions of the model are full."
            )
        yield Piece(detokenizer.last_segment, len(prompt), count, reason)
        if reason:
            return


def stream(
    model: nn.Module, tokenizer: TokenizerWrapper, messages: Messages, **options: Any
) -> Iterator[str]:
    """Yield the words of an answer as they come; options and errors as `pieces`."""
    for piece in pieces(model, tokenizer, messages, **options):
        if piece.text:
            yield piece.text


def answer(
    model: nn.Module, tokenizer: TokenizerWrapper, messages: Messages, **options: Any
) -> str:
    """The whole answer to a conversation; options and errors as `pieces`."""
    return "".join(stream(model, tokenizer, messages, **options))


def answer_all(
    model: nn.Module,
    tokenizer: TokenizerWrapper,
    conversations: Sequence[Messages],
    *,
    max_tokens: int,
    batch_size: int = 16,
    tools: Sequence[Tools | None] | None = None,
) -> list[str]:
    """Answer many conversations greedily, several at a time.

    In float32 the answers are those of `answer`; in half precision a batch rounds differently
    from a single row, so that two tokens of nearly the same probability may change places.

    Args:
        model: an mlx-lm model that `model.load` has loaded.
        tokenizer: its tokenizer.
        conversations: each up to and with the user's turn.
        max_tokens: most tokens to generate for each.
        batch_size: rows that are generated side by side.
        tools: what the model may call in each of them; None for nothing anywhere.

    Raises:
        UserError: as `pieces`.
    """
    Sampling(max_tokens)
    asked = list(zip(conversations, tools or [None] * len(conversations), strict=True))
    prompts = [prompt_tokens(tokenizer, *question) for question in asked]
    if not prompts:
        return []
    most = [min(max_tokens, model.limits.room(prompt, tokenizer)) for prompt in prompts]
    limit = model.limits.longest_row
    longest = max(len(prompt) + count for prompt, count in zip(prompts, most, strict=True))
    if limit and longest > limit + 1:  # a batch has one length, and this model has two ways
        return [answer(model, tokenizer, m, max_tokens=max_tokens, tools=t) for m, t in asked]
    generator = BatchGenerator(
        model,
        stop_tokens=[[token] for token in sorted(tokenizer.eos_token_ids)],
        completion_batch_size=batch_size,
        prefill_batch_size=batch_size,
    )
    tokens: dict[int, list[int]] = {uid: [] for uid in generator.insert(prompts, most)}
    with contextlib.closing(generator), contextlib.redirect_stdout(sys.stderr):
        while responses := generator.next_generated():
            for response in responses:
                if response.finish_reason != "stop":
                    tokens[response.uid].append(response.token)
    return [text_of(tokenizer, row) for row in tokens.values()]


def prompt_tokens(
    tokenizer: TokenizerWrapper, messages: Messages, tools: Tools | None = None
) -> list[int]:
    """The conversation in the tokenizer's chat template, up to where the answer begins.

    A control token that somebody spells out in it is encoded as text (see `data.controls`).

    Raises:
        UserError: there is no template, it refuses the conversation or leaves out a part of it,
            or a message is not what it should be.
    """
    if not tokenizer.has_chat_template:
        raise UserError("the model's tokenizer has no chat template, so it cannot be talked to.")
    conversation = Conversation(
        read_messages(list(messages), "messages"),
        text=None,
        place="the conversation",
        tools=read_tools(tools and list(tools), "tools"),
    )
    chat = TemplatedChat(conversation, tokenizer)
    if "tools" in chat.left_out(add_generation_prompt=True):
        raise chat.refused("it leaves out the tools")
    return chat.tokens(add_generation_prompt=True).tolist()


def token_ids(model: Any, prompt: Sequence[int], most: int, sampler: Sampler) -> Iterator[int]:
    """Generate `most` tokens, whether or not one of them ends the answer.

    With LongRoPE a text that becomes too long for the short factors is computed anew by the long
    ones, as Transformers does it.
    """
    text, short = list(prompt), model.limits.longest_row
    with wired_limit(model, [generation_stream]):
        while most > 0:
            crosses = short is not None and len(text) <= short
            count = min(most, short + 1 - len(text)) if crosses else most
            with expecting(model, len(text)):
                for token, _ in generate_step(
                    mx.array(text),
                    model,
                    max_tokens=count,
                    sampler=sampler,
                    logits_processors=[_in_float32],
                ):
                    text.append(int(token))
                    yield text[-1]
            most -= count


def _in_float32(tokens: mx.array, logits: mx.array) -> mx.array:
    """Let probabilities be computed in float32, as Transformers does, whatever the weights are."""
    return logits.astype(mx.float32)


def make_sampler(sampling: Sampling) -> Sampler:
    """How a token is drawn from log-probabilities `(B, V)`; the steps and their order are those
    of Transformers' logits processors.

    The options are arrays, for MLX compiles a kernel for every constant and keeps it.
    """
    if sampling.temperature == 0:
        return greedy_sampler
    # Beyond these bounds float32 would divide by 0 or infinity; the draws are the same.
    temperature = mx.array(min(max(sampling.temperature, 1e-30), 1e30))
    top_p = mx.array(sampling.top_p)

    def sampler(logprobs: mx.array) -> mx.array:
        scores = (logprobs - mx.max(logprobs, axis=-1, keepdims=True)) / temperature
        if sampling.top_p < 1:
            scores = apply_top_p(scores, top_p)
        return mx.random.categorical(scores)

    return sampler


def _add(token: int, detokenizer: Any, tokenizer: TokenizerWrapper) -> None:
    """Give a token to the detokenizer, unless it is none of the tokenizer's.

    A model whose vocabulary is padded may say such ids; like `decode`, that adds nothing.
    """
    if token < len(tokenizer) and tokenizer.convert_ids_to_tokens(token) is not None:
        detokenizer.add_token(token)


def text_of(tokenizer: TokenizerWrapper, tokens: Sequence[int]) -> str:
    """Detokenise as streaming does, so that both ways give the same text."""
    detokenizer = tokenizer.detokenizer
    for token in tokens:
        _add(token, detokenizer, tokenizer)
    detokenizer.finalize()
    return detokenizer.text


def _quiet(items: Iterator[T]) -> Iterator[T]:
    """Keep what mlx-lm prints while it makes an item off standard output."""
    done = object()
    while True:
        with contextlib.redirect_stdout(sys.stderr):
            item = next(items, done)
        if item is done:
            return
        yield item  # type: ignore[misc]
