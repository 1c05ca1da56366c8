"""`dcft push`: share an adapter on the Hugging Face Hub."""

import json
from dataclasses import dataclass
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from dcft_cli.adapter_file.hub import SCHEME, is_hub_address, is_repository
from dcft_cli.adapter_file.read import ADAPTER_FILE, read_contents
from dcft_cli.data.quiet import quiet
from dcft_cli.errors import RunError, UserError
from dcft_cli.runs.adapted import recipe_of
from dcft_cli.runs.card import public_base, write_card
from dcft_cli.runs.folder import RunFolder, adapter_file
from dcft_cli.tasks import FAMILIES


@dataclass(frozen=True)
class PushResult:
    """An adapter that was shared, or would be.

    Attributes:
        repository: USER/NAME.
        card: the text of its README.
        bytes: size of the adapter file.
        url: of the commit; None if nothing was sent.
        notes: what the user should know.
    """

    repository: str
    card: str
    bytes: int
    url: str | None
    notes: tuple[str, ...]

    @property
    def address(self) -> str:
        """Address by which `dcft` commands load the adapter."""
        return f"{SCHEME}{self.repository}"

    def to_json(self) -> dict[str, Any]:
        """Return the output of `--json`."""
        return {**vars(self), "notes": list(self.notes), "address": self.address}


def push(
    source: str, repository: str, *, private: bool = False, dry_run: bool = False
) -> PushResult:
    """Upload an adapter file and a model card that is written from its run, in one commit.

    The repository is created if there is none. The login is that of the Hub's own tools (`hf auth
    login` or HF_TOKEN); it is not stored.

    Args:
        source: run folder or adapter file.
        repository: USER/NAME.
        private: whether a new repository is private.
        dry_run: write the card, send nothing.

    Raises:
        UserError: no adapter, a name of another form, no login or no permission.
        RunError: the Hub cannot be reached.
    """
    if is_hub_address(source):
        raise UserError(f"{source} is on the Hub already.", "Name a run folder or adapter file.")
    repository = repository.removeprefix(SCHEME)
    if not is_repository(repository):
        raise UserError(f"{repository} is not the name of a repository.", "Write USER/NAME.")
    path = adapter_file(source)
    contents = read_contents(path)
    recipe = recipe_of(path, contents)
    file = RunFolder(path.parent).metrics
    metrics = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    card = write_card(
        contents,
        repository,
        auto_class=FAMILIES[recipe.task.kind].auto_class,
        recipe=recipe,
        metrics=metrics,
    )
    notes = []
    if public_base(contents, recipe) is None:
        notes.append(
            f"The base model ({contents.base['name'] or 'it has no name'}) is not on the Hub: "
            "others need the same weights, and name them with model.name=DIR."
        )
    if not metrics:
        notes.append(
            f"{path.parent} has no metrics.json: the card shows neither scores nor the settings of "
            "the training."
        )
    files = {ADAPTER_FILE: path.read_bytes(), "README.md": card.encode()}
    url = None if dry_run else _upload(repository, files, private)
    return PushResult(repository, card, path.stat().st_size, url, tuple(notes))


def _upload(repository: str, files: dict[str, bytes], private: bool) -> str:
    api = HfApi()
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    try:
        with quiet():
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.create_commit(repository, operations, commit_message="Add a DCFT adapter")
    except OfflineModeIsEnabled as error:
        raise RunError(
            "The Hub cannot be used: HF_HUB_OFFLINE is set.", "Unset it: HF_HUB_OFFLINE=0."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UserError(
                f"The Hub does not let you write to {repository} (status {status}).",
                "Log in with a token that may write: hf auth login, or set HF_TOKEN.",
            ) from error
        raise RunError(
            f"The Hub refused the upload to {repository} (status {status}): "
            f"{error.server_message or 'no reason given'}"
        ) from error
    # Connection errors are those of the network library, which huggingface_hub may exchange.
    except Exception as error:
        raise RunError(
            f"The Hub could not be reached at {api.endpoint}: {type(error).__name__}.",
            "Check the network.",
        ) from error
    return str(commit.commit_url)
