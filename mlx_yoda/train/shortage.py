"""A lack of memory: telling it from other errors, and what to do about it in words."""

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.errors import UserError, first_line

# What MLX says of it: its allocators, Metal's command buffers, CUDA.
_WORDS = ("alloc", "insufficient memory", "outofmemory", "out of memory")


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that there is too little memory."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(word in said for word in _WORDS)


def shortage(error: Exception, rows: int, config: TrainConfig) -> UserError:
    """The same for the user, where so many rows at once may not or cannot become fewer."""
    less = ["train.gradient_checkpointing=true"] if config.gradient_checkpointing is False else []
    if rows > 1:
        less += ["train.auto_find_batch_size=true"]
        less += ["a smaller train.per_device_train_batch_size (with more"]
        less[-1] += " train.gradient_accumulation_steps the step stays the same)"
    less += ["a smaller data.max_length", "fewer bits, model.quantization={bits: 4}"]
    count = f"{rows} rows" if rows > 1 else "a single row"
    return UserError(
        f"there is not enough memory for {count} at once ({first_line(error)}): take "
        f"{', '.join(less[:-1])} or {less[-1]}; the checkpoints stay."
    )
