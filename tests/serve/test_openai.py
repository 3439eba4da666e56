"""The server as a user starts it, asked by OpenAI's own client."""

import signal

import openai
import pytest

from mlx_yoda.generation import answer, attach
from mlx_yoda.lora.inject import remove
from mlx_yoda.recipes.respond import read_adapter
from tests.machine import PATIENCE

HELLO = [{"role": "user", "content": "You must find the old map. <|end|>\n<|user|>"}]
TOKEN = "a-token-long-enough"


@pytest.fixture(scope="module")
def adapter(make_adapter):
    return make_adapter()


@pytest.fixture(scope="module")
def served(serve, base_folder, adapter):
    """The process, and the address of its API."""
    options = ("--model", base_folder, "--adapter", adapter, "--max-tokens", 24)
    process, page = serve(*options, MLX_YODA_TOKEN=TOKEN)
    assert page.endswith(f"/#token={TOKEN}")
    return process, page.partition("#")[0] + "v1"


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(
        base_url=served[1], api_key=TOKEN, max_retries=0, timeout=PATIENCE
    ) as client:
        yield client


@pytest.fixture(scope="module")
def wanted(our_base, adapter):
    """What base and adapter say when they are asked without a server."""
    model, tokenizer = our_base.model, our_base.tokenizer
    said = {"base": answer(model, tokenizer, HELLO, max_tokens=24)}
    attach(model, read_adapter(str(adapter)))
    said["adapter"] = answer(model, tokenizer, HELLO, max_tokens=24)
    remove(model)
    assert said["base"] != said["adapter"]
    return said


@pytest.mark.slow
def test_base_and_adapter_are_two_models(client):
    assert [model.id for model in client.models.list()] == ["base", "adapter"]
    assert client.models.retrieve("adapter").owned_by == "mlx-yoda"


@pytest.mark.parametrize("model", ["base", "adapter", "base"])
def test_an_answer_is_what_generate_says(client, wanted, model):
    said = client.chat.completions.create(model=model, messages=HELLO)
    assert said.choices[0].message.content == wanted[model]
    assert said.choices[0].finish_reason == "length"
    assert said.usage.completion_tokens == 24


@pytest.mark.parametrize("model", ["base", "adapter"])
def test_a_stream_says_the_same_in_pieces(client, wanted, model):
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options=options
    )
    *chunks, last = stream
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(texts) == wanted[model]
    assert len([text for text in texts if text]) > 5
    assert chunks[-1].choices[0].finish_reason == "length"
    assert last.usage.completion_tokens == 24


def test_options_count(client, wanted):
    def said(**options):
        made = client.chat.completions.create(model="base", messages=HELLO, **options)
        return made.choices[0].message.content

    assert wanted["base"].startswith(said(max_tokens=4))
    stop = wanted["base"][5:9]
    assert said(stop=stop) == wanted["base"][: wanted["base"].index(stop)]
    assert said(temperature=2, seed=1) == said(temperature=2, seed=1)
    assert len({said(temperature=2, seed=seed) for seed in range(3)}) > 1


def test_errors_are_what_the_client_knows(client, served):
    with pytest.raises(openai.NotFoundError, match="base and adapter"):
        client.chat.completions.create(model="gpt-5", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="max_tokens may be 24 at most"):
        client.chat.completions.create(model="base", messages=HELLO, max_tokens=25)
    with pytest.raises(openai.BadRequestError, match="shorten it"):
        long = [{"role": "user", "content": "word " * 5000}]
        client.chat.completions.create(model="base", messages=long)
    with pytest.raises(openai.APIStatusError, match="1,048,576 bytes"):
        long = [{"role": "user", "content": "word " * 500_000}]
        client.chat.completions.create(model="base", messages=long)
    with (
        openai.OpenAI(base_url=served[1], api_key="another", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


@pytest.mark.slow
def test_ctrl_c_ends_it(serve, base_folder):
    process, _ = serve("--model", base_folder)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
