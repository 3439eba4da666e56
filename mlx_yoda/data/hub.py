"""Data sets on the Hugging Face Hub, through the `datasets` library and its cache."""

from collections.abc import Collection
from typing import Any

from mlx_yoda.data.arrow import rows_of
from mlx_yoda.data.rows import Row
from mlx_yoda.errors import UserError
from mlx_yoda.pytorch import show_pytorch

_PATIENCE = 10.0  # seconds to wait for the Hub's first answer


def load_hub(name: str, config_name: str | None) -> dict[str, Collection[Row]]:
    """All splits of a Hub data set, by their names there.

    The Hub is asked once, without retries, whether it can be reached; if not, what an earlier
    run has cached is used. (`datasets` alone would retry for half a minute and more.)

    Args:
        name: `owner/name`.
        config_name: which of the data set's configurations, if it has several.

    Raises:
        UserError: no such data set or configuration, no access, or no network and no cache.
    """
    show_pytorch()  # datasets imports it where it is in `sys.modules`, hidden or not
    import datasets  # 1.5 s, and local files need none of it

    from mlx_yoda.hub_client import explain, limited_patience, line, raised_by_hub

    refusal = _ask(name)
    try:
        with limited_patience():
            splits = (
                datasets.load_dataset(name, config_name)
                if refusal is None
                else _cached(name, config_name)
            )
    # Whatever a stranger's repository brings up: `datasets` raises a dozen kinds of exception.
    except Exception as error:
        if refusal is not None:
            raise UserError(
                f"'{name}' is neither a file nor a folder here, and {refusal}"
            ) from error
        of_hub = raised_by_hub(error)
        reason = "; ".join(filter(None, explain(of_hub))) if of_hub else line(error)
        raise UserError(f"the Hub's {name} cannot be loaded: {reason}") from error
    return {split: rows_of(part, f"{name} {split}") for split, part in splits.items()}


def _ask(name: str) -> str | None:
    """Why the Hub does not answer, and what helps; None if it has the data set.

    Raises:
        UserError: it answers that it has no such data set, or does not give it to this user.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    from mlx_yoda.hub_client import explain, line

    try:
        HfApi().dataset_info(name, timeout=_PATIENCE)
    except RepositoryNotFoundError:  # gated ones are a subclass
        raise UserError(
            f"'{name}' is neither a file nor a folder here, nor a data set on the Hub that you "
            "may read; if it is private or gated, log in with `hf auth login`"
        ) from None
    except HFValidationError as error:
        raise UserError(
            f"'{name}' is neither a file nor a folder here, nor a name on the Hub: {line(error)}"
        ) from None
    # The HTTP library below, and so its exceptions, differ between versions of huggingface_hub.
    except Exception as error:
        return "; ".join(filter(None, explain(error)))
    return None


def _cached(name: str, config_name: str | None) -> Any:
    """The `DatasetDict` that an earlier `load_dataset` left in the cache."""
    from datasets.packaged_modules.cache.cache import Cache

    builder = Cache(
        repo_id=name,
        dataset_name=name.split("/")[-1],
        config_name=config_name,
        version="auto",
        hash="auto",
    )
    return builder.as_dataset()
