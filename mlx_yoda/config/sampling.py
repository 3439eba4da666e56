"""How an answer is drawn, checked before a model is loaded for it."""

import math
from dataclasses import dataclass

from mlx_yoda.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """The options of an answer, under Transformers' names.

    Attributes:
        max_tokens: most tokens to generate.
        temperature: 0 takes the likeliest token each time; larger is more random.
        top_p: sample only among the likeliest tokens that together have this probability, once
            the temperature is applied.
        seed: makes sampling repeatable (it seeds MLX's global generator); None leaves it.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of range, NaN among it.

        Raises:
            UserError: an option is.
        """
        if not self.max_tokens >= 1:
            raise UserError(f"max_tokens must be at least 1, not {self.max_tokens}.")
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature must be a number from 0, not {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, not {self.top_p}.")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise UserError(f"seed must be from 0 to below 2**64, not {self.seed}.")
