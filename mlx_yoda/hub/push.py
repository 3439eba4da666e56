"""Publish a run on the Hugging Face Hub, in one commit: all of it is there, or nothing."""

from collections.abc import Sequence

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from mlx_yoda.errors import UserError
from mlx_yoda.hub.asking import Remark, ask, well_behaved_client
from mlx_yoda.hub.base import Base
from mlx_yoda.hub.contents import Item
from mlx_yoda.hub_client import explain

_MAIN = "main"


def push(
    items: Sequence[Item],
    repo_id: str,
    *,
    message: str,
    private: bool = False,
    revision: str | None = None,
    endpoint: str | None = None,
    remark: Remark,
) -> str:
    """Commit files to a model repository, which is made if there is none.

    Args:
        items: the files.
        repo_id: `owner/name`, or a name alone for the token's own account.
        message: of the commit.
        private: make the repository private; one that is there and public is refused.
        revision: the branch, which is made from `main` if there is none.
        endpoint: the Hub; None for the one that HF_ENDPOINT names, or huggingface.co.
        remark: told of pauses and of what the client warns of.

    Returns:
        The address of the commit.

    Raises:
        UserError: there is no token, or the Hub refuses or cannot be reached, and nothing has
            been published; or it left out some of the files.
    """
    token = get_token()
    if token is None:
        raise UserError(
            "there is no token for the Hugging Face Hub: log in with 'hf auth login', or set "
            "HF_TOKEN to one that may write (https://huggingface.co/settings/tokens)."
        )
    api = HfApi(endpoint=endpoint, token=token, library_name="mlx-yoda")
    try:
        with well_behaved_client(remark):
            where = _repository(api, repo_id, private, remark)
            if revision and revision != _MAIN and not revision.startswith("refs/"):
                branch = revision
                ask(lambda: api.create_branch(where, branch=branch, exist_ok=True), remark)
            commit = ask(lambda: _commit(api, where, items, message, revision), remark)
            left_out = ask(lambda: _left_out(api, where, items, commit), remark)
    except UserError as error:
        raise UserError(f"{error}; nothing was published in {repo_id}.") from error.__cause__
    if left_out:
        raise UserError(
            f"the Hub ignored {', '.join(left_out)}, as a .gitignore in {where} tells it to: "
            f"{commit} is not complete."
        )
    return str(commit)


def check_name(repo_id: str) -> None:
    """Refuse a repository's name that no Hub takes, which needs no network to tell.

    Raises:
        UserError: it is no `owner/name` and no name alone.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(": ".join(explain(error)) + ".") from None


def license_of(base: Base, endpoint: str | None = None) -> str | None:
    """The licence that a base's page on the Hub names; None if it does not, or is not to be had."""
    if base.kind != "hub":
        return None
    try:
        card = HfApi(endpoint=endpoint).model_info(base.name, timeout=10).card_data
    except Exception:  # it is a courtesy: whatever is in the way, there is --license
        return None
    found = card.get("license") if card else None
    return found if isinstance(found, str) and found != "other" else None


def _repository(api: HfApi, repo_id: str, private: bool, remark: Remark) -> str:
    """Make it if need be; its full name."""
    visibility = True if private else None  # None: as the account's settings have it
    made = ask(lambda: api.create_repo(repo_id, private=visibility, exist_ok=True), remark)
    if private and not ask(lambda: api.model_info(made.repo_id), remark).private:
        raise UserError(f"{made.repo_id} is there already and public, but --private is given")
    return made.repo_id


def _commit(
    api: HfApi, repo_id: str, items: Sequence[Item], message: str, revision: str | None
) -> CommitInfo:
    """One try, which may follow one whose answer was lost: what is there already is not sent."""
    return api.create_commit(
        repo_id,
        [CommitOperationAdd(item.path, item.content) for item in items],
        commit_message=message,
        revision=revision,
    )


def _left_out(api: HfApi, repo_id: str, items: Sequence[Item], commit: CommitInfo) -> Sequence[str]:
    """The files that are not in a commit: the client passes over what the Hub says it ignores."""
    paths = [item.path for item in items]
    there = {found.path for found in api.get_paths_info(repo_id, paths, revision=commit.oid)}
    return [path for path in paths if path not in there]
