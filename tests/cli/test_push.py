"""Sharing adapters: the card, the upload and the download, against a stand-in for the Hub."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dcft_cli.adapter_file.read import read_contents
from dcft_cli.errors import AdapterFileError, RunError, UserError
from dcft_cli.runs.card import public_base
from dcft_cli.runs.push import push
from tests.cli.conftest import Output
from tests.hub import Hub, running
from tests.jobs import Job, recipe, train

TOKEN = "hf_" + "s" * 30
Cli = Callable[..., Output]


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    return train(recipe("sst2", folder, base, "data.hub=null"), folder / "run")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running(TOKEN) as hub:
        yield hub


@pytest.fixture
def online(hub: Hub, tmp_path: Path) -> Cli:
    """Return a function that runs `dcft` in a new process that knows the stand-in only."""

    def run(*arguments: str, token: str = TOKEN) -> Output:
        own = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "dcft_cli", *arguments],
            env=os.environ | own | {"HF_TOKEN": token},
            capture_output=True,
            text=True,
        )
        return Output(done.returncode, done.stdout, done.stderr)

    return run


def test_a_pushed_adapter_is_read_and_scored_by_its_address(
    job: Job, hub: Hub, online: Cli, tmp_path: Path
) -> None:
    pushed = online("push", str(job.folder), "acme/opinions", "--private")
    assert pushed.code == 0, pushed.err
    assert "hub://acme/opinions" in pushed.out
    assert hub.private == {"acme/opinions"}
    adapter = (job.folder / "adapter.safetensors").read_bytes()
    assert hub.files["acme/opinions/adapter.safetensors"] == adapter
    assert hub.files.keys() == {"acme/opinions/adapter.safetensors", "acme/opinions/README.md"}
    scored = online(
        "eval",
        "hub://acme/opinions@main",
        f"data.validation={job.plan.recipe.data.validation}",
        "training.device=cpu",
    )
    assert scored.code == 0, scored.err
    assert f"{job.metrics['metrics']['accuracy']:.4f}" in scored.out
    assert TOKEN in hub.seen_tokens
    written = b"".join(hub.files.values()).decode("latin-1")
    assert TOKEN not in written + pushed.out + pushed.err + scored.out + scored.err


def test_without_permission_nothing_is_sent(job: Job, hub: Hub, online: Cli) -> None:
    refused = online("push", str(job.folder), "acme/opinions", token="hf_wrong")
    assert refused.code == 2
    assert "hf auth login" in refused.err
    assert "hf_wrong" not in refused.err
    assert not hub.files


def test_an_address_without_an_adapter(hub: Hub, online: Cli) -> None:
    missing = online("inspect", "hub://acme/nothing")
    assert missing.code == 2
    assert "hub://acme/nothing could not be read from the Hub: there is no" in missing.err


def test_the_card_says_what_was_trained_and_how_well(job: Job) -> None:
    result = push(str(job.folder), "acme/opinions", dry_run=True)
    assert result.url is None
    card = result.card
    assert "pipeline_tag: text-classification" in card
    assert "Labels: negative, positive." in card
    assert f"| accuracy | {job.metrics['baselines']['constant']['accuracy']:.4f} |" in card
    assert f" {job.metrics['metrics']['accuracy']:.4f} |" in card
    assert "24 training rows, 12 rows in validation" in card
    assert "| `training.learning_rate` | 0.01 |" in card
    assert "dcft predict hub://acme/opinions" in card
    assert "--to peft" in card


def test_the_card_names_no_local_path(job: Job) -> None:
    result = push(str(job.folder), "acme/opinions", dry_run=True)
    for path in (job.plan.recipe.model.name, str(job.folder), "/data/"):
        assert path not in result.card
    assert "a local base model" in result.card
    assert any("not on the Hub" in note for note in result.notes)


@pytest.mark.parametrize(
    ("name", "trained_on", "found"),
    [
        ("acme/tiny", "acme/tiny", True),
        ("tiny-v1.0", "tiny-v1.0", True),
        ("bases/tiny", "/home/me/bases/tiny", False),  # trained in another folder
        ("~/tiny", "~/tiny", False),
        ("./tiny", "./tiny", False),
        ("my/bases/tiny", "my/bases/tiny", False),
        ("package://tiny/model", "package://tiny/model", False),
    ],
)
def test_which_base_models_may_be_on_the_hub(
    job: Job, name: str, trained_on: str, found: bool
) -> None:
    contents = read_contents(job.folder / "adapter.safetensors")
    contents = replace(contents, base={**contents.base, "name": name})
    trained = job.plan.recipe
    trained = trained.model_copy(
        update={"model": trained.model.model_copy(update={"name": trained_on})}
    )
    assert public_base(contents, trained) == (name if found else None)


def test_a_run_that_was_continued_keeps_the_settings_of_its_scores(
    job: Job, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(job.folder, tmp_path / "run"))
    stored = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    stored["training"]["learning_rate"] = 0.5
    (run / "recipe.yaml").write_text(yaml.safe_dump(stored), "utf-8")
    card = push(str(run), "acme/opinions", dry_run=True).card
    assert "| `training.learning_rate` | 0.01 |" in card


def test_scores_of_local_files_are_not_those_of_the_data_set_on_the_hub(
    job: Job, tmp_path: Path
) -> None:
    """As after `dcft train recipes/sst2.yaml data.train=FILE data.validation=FILE`."""
    run = Path(shutil.copytree(job.folder, tmp_path / "run"))
    stored = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    stored["data"] |= {"hub": "nyu-mll/glue", "config": "sst2"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(stored), "utf-8")
    card = push(str(run), "acme/opinions", dry_run=True).card
    assert "Local files, 24 training rows" in card
    assert "name: local files" in card and "nyu-mll" not in card


def test_a_file_without_its_run_gets_a_card_without_scores(job: Job, tmp_path: Path) -> None:
    file = shutil.copy(job.folder / "adapter.safetensors", tmp_path)
    result = push(str(file), "acme/opinions", dry_run=True)
    assert "## Scores" not in result.card
    assert "training.learning_rate" not in result.card  # the file does not have it
    assert any("no metrics.json" in note for note in result.notes)


@pytest.mark.parametrize("name", ["opinions", "a/b/c", "acme/", "acme/two words", "hub://acme"])
def test_names_that_are_no_repository(job: Job, name: str) -> None:
    with pytest.raises(UserError, match="USER/NAME"):
        push(str(job.folder), name, dry_run=True)


def test_offline_says_so(job: Job) -> None:
    with pytest.raises(RunError, match="HF_HUB_OFFLINE"):
        push(str(job.folder), "acme/opinions")


@pytest.mark.parametrize("address", ["hub://", "hub://acme", "hub://a/b/c", "hub://a/b@"])
def test_addresses_of_another_form(address: str) -> None:
    from dcft_cli.adapter_file.hub import locate

    with pytest.raises(AdapterFileError, match="USER/NAME"):
        locate(address)
