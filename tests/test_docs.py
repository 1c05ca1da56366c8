"""The documents say what the program does: commands, recipe keys, counts, examples, links."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from dcft_cli import __version__
from dcft_cli.cli import app
from dcft_cli.errors import RecipeError
from dcft_cli.recipe import AdapterSection, DataSection, TaskSection, load_recipe
from dcft_cli.recipe.settings import settings
from dcft_cli.recipe.source import plain_value
from dcft_cli.runs.adapter_plan import AdapterPlan, plan_adapter
from dcft_cli.tasks import build_task
from dcft_cli.tasks.known import KNOWN
from tests.families import published

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
README, RECIPES, SWEEPS, METHOD, PYTHON, PREDICTION, TUTORIAL, FORMAT, CONTRIBUTING = (
    ROOT / name
    for name in (
        "README.md",
        "docs/recipes.md",
        "docs/sweeps.md",
        "docs/method.md",
        "docs/python.md",
        "docs/prediction.md",
        "docs/tutorial.md",
        "docs/adapter-format.md",
        "CONTRIBUTING.md",
    )
)
MODELS = {
    "DeBERTaV3-base": "deberta-v3-base",
    "RoBERTa-large": "roberta-large",
    "DeBERTaV2-xxlarge": "deberta-v2-xxlarge",
}
_AS_MODULE = re.compile(r"^(torchrun .*-m dcft_cli|python -m dcft_cli) ")


@cache
def text(page: Path) -> str:
    return page.read_text("utf-8")


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)


def code(page: Path) -> Iterator[str]:
    """Every line of code on a page: of fenced and indented blocks, and between backticks."""
    prose = text(page)
    for block in re.findall(r"^```\w*\n(.*?)^```$", prose, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    prose = re.sub(r"^```.*?^```$", "", prose, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"^ {4,}(\S.*)$", prose, re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", prose)


def rows(page: Path, first: str) -> list[list[str]]:
    """The cells of the tables on a page whose first column is headed `first`."""
    found, inside = [], False
    for line in text(page).splitlines():
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        cells = [cell.strip().replace(r"\|", "|") for cell in cells]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and not set(cells[0]) <= set("-: "):
            found.append(cells)
    return found


# Commands


@pytest.mark.parametrize(
    ("marker", "command"),
    [
        ("quickstart", 'pip install -e ".[quickstart]" && dcft train recipes/quickstart.yaml'),
        ("test", 'pip install -e ".[test]" && pytest'),
    ],
)
def test_the_readme_has_the_commands_that_the_checks_run(marker: str, command: str) -> None:
    assert re.findall(rf"<!-- {marker} -->\n```\w*\n(.*?)\n```", text(README)) == [command]


def dcft_commands() -> list[Any]:
    """Every `dcft ...` on every page, as its arguments; those shown with an error aside."""
    found = {}
    for page in PAGES:
        lines = [*code(page), ""]
        for line, following in pairwise(lines):
            for part in re.split(r"&&|;|\|| > ", line.removeprefix("$ ")):
                words = _AS_MODULE.sub("dcft ", part.strip().removeprefix("do "))
                if re.match(r"dcft (-|[a-z])", words) and not following.startswith("Error:"):
                    found[f"{page.name}: {words}"] = shlex.split(words, comments=True)[1:]
    return [pytest.param(arguments, id=name) for name, arguments in found.items()]


@pytest.mark.parametrize("arguments", dcft_commands())
def test_every_command_line_parses(arguments: list[str]) -> None:
    name, *rest = arguments
    if name.startswith("-") or rest == ["--help-settings"]:
        return
    assert name in commands()
    if not rest:  # `dcft train`, in a sentence
        return
    context = commands()[name].make_context(name, rest)
    keys = [setting.key for setting in settings()]
    for override in context.params.get("overrides") or ():
        key, equals, _ = override.partition("=")
        assert equals and key in keys, f"no recipe key {key}"
    for recipe in re.findall(r"recipes/\S+\.yaml", " ".join(arguments)):
        assert (ROOT / recipe).is_file()


def test_every_error_shown_is_the_one_given() -> None:
    shown = re.findall(r"^ {4}\$ dcft train (.*)\n((?: {4}\S.*\n)+)", text(RECIPES), re.MULTILINE)
    assert len(shown) == 1
    for arguments, output in shown:
        recipe, *overrides = shlex.split(arguments)
        with pytest.raises(RecipeError) as error:
            load_recipe(recipe, overrides)
        lines = f"Error: {error.value.message}\nHint: {error.value.hint}".splitlines()
        assert [line.strip() for line in output.splitlines()] == lines


def test_the_commands_are_all_there() -> None:
    shown = {parameters.values[0][0] for parameters in dcft_commands()}
    assert shown >= set(commands())


# Recipes


def test_every_key_is_documented_with_its_type_and_default() -> None:
    documented = [*rows(RECIPES, "key"), *rows(SWEEPS, "key")]
    wanted = {key: [kind, default] for key, kind, default, _ in settings()}
    found = {
        key.strip("`"): [kind.replace("`", ""), default.strip("`")]
        for key, kind, default, _ in documented
    }
    assert found == wanted
    assert all(cells[3] for cells in documented)


def test_every_known_task_is_documented() -> None:
    found = {}
    for name, columns, classes, scores in rows(RECIPES, "task"):
        *texts, label = re.findall(r"`(\w+)`", columns)
        labels = tuple(classes.split(", ")) if classes else ()
        found[name.strip("`")] = (
            tuple(texts),
            label,
            labels,
            tuple(re.findall(r"`(\w+)`", scores)),
        )
    tasks = {name: build_task(TaskSection(name=name), DataSection()) for name in KNOWN}
    assert found == {n: (t.text, *t.label, t.labels, t.metrics) for n, t in tasks.items()}


@pytest.mark.parametrize(
    "block",
    [pytest.param(b, id=f"{p.name}-{n}") for p in PAGES for n, b in enumerate(blocks(p, "yaml"))],
)
def test_every_recipe_on_a_page_loads(block: str, tmp_path: Path) -> None:
    if "model:" not in block:
        block += "\nmodel: {name: some/model}\n"
    if "task:" not in block:
        block += "\ntask: {type: classification}\n"
    (tmp_path / "recipe.yaml").write_text(block, "utf-8")
    assert load_recipe(str(tmp_path / "recipe.yaml")).recipe.model.name


# Counts


@cache
def plan(model: str, overrides: str) -> AdapterPlan:
    values = {}
    for override in re.findall(r"adapter\.(\w+=(?:\[[^]]*\]|\S+))", overrides):
        key, _, value = override.partition("=")
        values[key] = re.findall(r"\w+", value) if value[0] == "[" else plain_value(value)
    section = AdapterSection(**values)
    return plan_adapter(section, published(MODELS[model]), "AutoModelForSequenceClassification")


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def test_the_readme_counts_what_is_trained() -> None:
    table = rows(README, "model")
    assert [cells[0] for cells in table] == list(MODELS)
    for model, large, small, lora, full, ratio in table:
        plans = [plan(model, f"adapter.kernel_size={d}") for d in (8, 2)]
        assert [number(large), number(small)] == [p.adapter_parameters for p in plans]
        modules = plans[0].modules
        assert number(lora) == sum(m.out_features + m.in_features for m in modules)
        assert number(full) == sum(m.out_features * m.in_features for m in modules)
        assert float(ratio) == round(number(lora) / number(large), 1)


def test_the_method_page_counts_what_is_trained() -> None:
    table = rows(METHOD, "model")
    assert len(table) >= 16
    for model, overrides, count, _ in table:
        assert number(count) == plan(model, overrides.strip("`")).adapter_parameters


# Pages


@pytest.mark.parametrize("page", [pytest.param(p, id=p.name) for p in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", text(place), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor in slugs, target


def test_the_map_shows_the_package() -> None:
    """Every folder and top-level module, and nothing that is not there."""
    (listing,) = blocks(CONTRIBUTING, "text")
    shown, folder = set(), ""
    for line in listing.splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]
        folder = "" if len(indent) <= 4 else folder
        if name != "dcft_cli/" and len(indent) >= 4:
            shown.add(folder + name)
        if name.endswith("/") and len(indent) == 4:
            folder = name
    package = ROOT / "dcft_cli"
    there = {
        f"{p.name}/" if p.is_dir() else p.name
        for p in package.iterdir()
        if p.name not in ("__pycache__", "__main__.py")
    }
    assert {name for name in shown if "/" not in name.rstrip("/")} == there
    assert all((package / name).exists() for name in shown)


def test_the_changelog_knows_this_version() -> None:
    assert __version__ in text(ROOT / "CHANGELOG.md")
