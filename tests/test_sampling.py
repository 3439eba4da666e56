"""How tokens are drawn: Transformers' distribution, in float32, by few kernels."""

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx_lm.sample_utils import greedy_sampler
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from mlx_yoda.config.sampling import Sampling
from mlx_yoda.errors import UserError
from mlx_yoda.generation import make_sampler, token_ids


def of_transformers(logits, temperature, top_p):
    """The probabilities that Transformers draws from."""
    scores = TemperatureLogitsWarper(temperature)(None, torch.tensor(logits[None]))
    return torch.softmax(TopPLogitsWarper(top_p)(None, scores), -1)[0].numpy()


@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 0.8), (1.0, 0.5), (1.6, 0.9), (2.0, 1.0)])
def test_tokens_are_drawn_from_transformers_distribution(temperature, top_p):
    """At 0.7 and 0.8 the other order, top-p before the temperature, keeps five tokens more."""
    logits = np.random.default_rng(3).permutation(np.linspace(0, 4, 40, dtype=np.float32))
    wanted = of_transformers(logits, temperature, top_p)
    kept = wanted > 0
    assert top_p == 1 or 1 < kept.sum() < 30
    draws = 20_000
    mx.random.seed(5)
    logprobs = mx.broadcast_to(mx.array(logits) - mx.logsumexp(mx.array(logits)), (draws, 40))
    drawn = make_sampler(Sampling(temperature=temperature, top_p=top_p))(logprobs)
    counts = np.bincount(np.array(drawn), minlength=40)
    assert not counts[~kept].any()
    expected = draws * wanted[kept]
    chi_square = ((counts[kept] - expected) ** 2 / expected).sum()
    freedom = kept.sum() - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("temperature", [1e-45, 1e-12, 1e300])
def test_a_temperature_beyond_float32_is_still_one(temperature):
    """The smallest take the likeliest token, the largest any that the model thinks possible."""
    logprobs = mx.array([[-1.0, -0.5, -math.inf, -1.001]] * 400)
    drawn = np.array(make_sampler(Sampling(temperature=temperature, top_p=0.99))(logprobs))
    assert set(drawn.tolist()) == ({1} if temperature < 1 else {0, 1, 3})


KERNELS = """
import mlx.core as mx
from mlx_yoda.config.sampling import Sampling
from mlx_yoda.generation import make_sampler
from pathlib import Path
import tempfile

def draw(temperature, top_p):
    sampler = make_sampler(Sampling(temperature=temperature, top_p=top_p))
    mx.eval(sampler(mx.log(mx.full((1, 50), 0.02))))
    return len(list(Path(tempfile.gettempdir()).rglob("*.so")))

assert draw(0.7, 0.8) == draw(0.9, 0.8) == draw(0.7, 0.6) == draw(1.5, 0.3) > 0
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels are not files")
def test_other_temperatures_compile_no_other_kernels(tmp_path):
    """MLX keeps every kernel that it compiles for the CPU in the temporary directory."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", KERNELS], env=environment, check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Sampling(**options)


def test_probabilities_are_computed_in_float32():
    """In bfloat16 these two are one number once the logarithm of the sum is subtracted."""
    logits = mx.array([[1.0, 1.0078125, *[0.0] * 60_000]], mx.bfloat16)

    class Model:
        limits = SimpleNamespace(longest_row=None)
        layers = ()

        def __call__(self, tokens, cache=None):
            return mx.broadcast_to(logits, (1, tokens.shape[1], logits.shape[-1]))

        def parameters(self):
            return {}

    assert list(token_ids(Model(), [0], 2, greedy_sampler)) == [1, 1]
