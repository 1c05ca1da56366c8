"""The model card of an adapter, written from its run."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from dcft_cli.adapter_file.contents import AdapterContents, Contents
from dcft_cli.adapter_file.hub import SCHEME
from dcft_cli.addresses import SCHEME as PACKAGE
from dcft_cli.addresses import local_path
from dcft_cli.errors import listed
from dcft_cli.methods.build import build
from dcft_cli.methods.load import settings_of
from dcft_cli.recipe import AdapterSection, Recipe
from dcft_cli.recipe.schema import HOW_STARTED, TrainingSection
from dcft_cli.runs.prepare import local_data
from dcft_cli.tasks import FAMILIES

_PIPELINES = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForQuestionAnswering": "question-answering",
}
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # unlike paths and package:// addresses
_MAIN_SETTINGS = ("learning_rate", "epochs", "max_steps", "batch_size", "seed")


def write_card(
    contents: Contents,
    repository: str,
    *,
    auto_class: str,
    recipe: Recipe,
    metrics: Mapping[str, Any],
) -> str:
    """Return the README of a Hub repository that holds an adapter.

    It names no local path and nothing of the machine.

    Args:
        contents: of the adapter file.
        repository: USER/NAME.
        auto_class: name of the transformers class that loads the task's model.
        recipe: of the run, or what the adapter file says of it.
        metrics: the content of metrics.json; empty if there is only an adapter file.
    """
    if local_data(recipe.data):  # not the Hub data set that the recipe names, too
        files = recipe.data.model_copy(update={"hub": None, "config": None})
        recipe = recipe.model_copy(update={"data": files})
    data = _metadata(repository, auto_class, recipe, metrics, contents).to_yaml()
    body = "\n\n".join(_sections(contents, repository, recipe, metrics))
    return f"---\n{data}\n---\n\n{body}\n"


def public_base(contents: Contents, recipe: Recipe) -> str | None:
    """Return the base model's name on the Hub; None for a local folder or an installed package.

    An adapter file may have the relative path of a folder; its run's recipe has the whole path.
    """
    name = str(contents.base["name"] or "")
    return name if _may_be_on_hub(name) and _may_be_on_hub(recipe.model.name) else None


def _may_be_on_hub(name: str) -> bool:
    return bool(_HUB_NAME.fullmatch(name)) and not local_path(name).exists()


def _metadata(
    repository: str,
    auto_class: str,
    recipe: Recipe,
    metrics: Mapping[str, Any],
    contents: Contents,
) -> ModelCardData:
    data, task = recipe.data, recipe.task
    pipeline = _PIPELINES.get(auto_class)
    results = [
        EvalResult(
            task_type=pipeline or task.kind,
            dataset_type=data.hub or "local",
            dataset_name=data.config or data.hub or "local files",
            metric_type=name,
            metric_value=round(value, 6),
        )
        for name, value in metrics.get("metrics", {}).items()
    ]
    return ModelCardData(
        base_model=public_base(contents, recipe),
        datasets=data.hub,
        library_name="dcft",
        model_name=repository.partition("/")[2] if results else None,
        pipeline_tag=pipeline,
        tags=["dcft", "adapter"],
        eval_results=results or None,
    )


def _sections(
    contents: Contents, repository: str, recipe: Recipe, metrics: Mapping[str, Any]
) -> Iterator[str]:
    base = str(contents.base["name"] or "")
    shown = base if base.startswith(PACKAGE) else public_base(contents, recipe)
    task = f"{recipe.task.name} ({recipe.task.kind})" if recipe.task.name else recipe.task.kind
    yield f"# {repository.partition('/')[2]}"
    kind = f"A {contents.method} adapter"
    if contents.method == "dcft":
        kind = "A DCFT adapter ([arXiv 2503.01419](https://arxiv.org/abs/2503.01419))"
    yield (
        f"{kind} of {shown or 'a local base model'} for "
        f"{task.replace('_', ' ')}: {contents.adapter_parameters:,} adapter and "
        f"{contents.head_parameters:,} head parameters in {contents.file_bytes / 1000:,.0f} kB."
    )
    if labels := contents.model["labels"] if FAMILIES[recipe.task.kind].has_classes else []:
        yield f"Labels: {listed(labels, limit=30)}."
    if metrics.get("metrics"):
        yield "## Scores"
        yield _scores(metrics)
    yield "## Data"
    yield _data(recipe, metrics)
    yield "## Use"
    yield _use(repository, settings_of(contents))
    yield "## Settings"
    yield _table(("setting", "value"), _settings(recipe, contents, metrics))
    yield (
        f"Base weights: fingerprint `{contents.base['fingerprint']}`, "
        f"revision {contents.base['revision'] or 'not recorded'}. Versions: "
        + ", ".join(f"{name} {version}" for name, version in contents.versions.items())
        + "."
    )


def _scores(metrics: Mapping[str, Any]) -> str:
    baselines = metrics.get("baselines", {})
    columns = {name.replace("_", " "): scores for name, scores in baselines.items() if scores}
    columns["adapter"] = metrics["metrics"]
    rows = [
        (name, *(f"{s[name]:.4f}" if name in s else "" for s in columns.values()))
        for name in metrics["metrics"]
    ]
    about = "The adapter's scores are those of the best evaluation on the validation rows."
    if baselines:
        about += (
            " Baselines: a constant prediction; the frozen base model with a fitted last layer."
        )
    return f"{_table(('', *columns), rows)}\n\n{about}"


def _data(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    data = recipe.data
    name = f"{data.hub}{f' ({data.config})' if data.config else ''}" if data.hub else "Local files"
    counts = []
    if "train_rows" in metrics:
        counts.append(f"{metrics['train_rows']:,} training rows")
    counts += [f"{n:,} rows in {s}" for s, n in metrics.get("validation_rows", {}).items()]
    return ", ".join([name, *counts]) + "."


def _use(repository: str, settings: AdapterSection) -> str:
    address = f"{SCHEME}{repository}"
    folder = shlex.quote(repository.partition("/")[2])
    commands = [f'dcft predict {address} --text "..."']
    if build(settings, seed=0).can_merge:
        commands.append(f"dcft merge {address} {folder}-merged")
    with_dcft = f"""With dcft:

```sh
{chr(10).join(commands)}
```

```python
import dcft_cli

predictor = dcft_cli.load("{address}")
predictor(["..."])
```"""
    if settings.method != "dcft":
        return with_dcft
    return f"""{with_dcft}

With PEFT, by the script in the README of this export:

```sh
dcft export {address} {folder}-peft --to peft
```"""


def _settings(
    recipe: Recipe, contents: Contents, metrics: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return the settings of the method and, as far as metrics.json has them, of the training.

    The recipe may be of a run that was continued since.
    """
    values: dict[str, object] = _method_settings(contents)
    values["data.max_length"] = recipe.data.max_length
    if "settings" in metrics:
        training = TrainingSection(**metrics["settings"]["training"])
        changed = training.model_dump(exclude_defaults=True, exclude=set(HOW_STARTED))
        main = {key: getattr(training, key) for key in _MAIN_SETTINGS}
        values |= {f"training.{k}": v for k, v in (main | changed).items() if v is not None}
    return [(f"`{key}`", str(value)) for key, value in values.items()]


def _method_settings(contents: Contents) -> dict[str, object]:
    """Return the method's settings by recipe key."""
    if isinstance(contents, AdapterContents):
        config = contents.config
        return {
            "adapter.kernel_size": config.kernel_size,
            "adapter.stride": config.effective_stride,
            "adapter.rank": config.rank,
            "adapter.scale": f"{config.scale:g}",
            "adapter.targets": ", ".join(config.targets),
        }
    settings = settings_of(contents).model_dump(exclude={"file_dtype"}, exclude_none=True)
    if "targets" in settings:
        settings["targets"] = ", ".join(settings["targets"])
    return {f"adapter.{key}": value for key, value in settings.items()}


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
