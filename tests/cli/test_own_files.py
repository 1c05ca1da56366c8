"""The recipes for own files on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import RunCli
from tests.samples import label_set_rows, tagged_rows

TINY = "training.max_steps=4 training.batch_size=8 training.device=cpu data.max_length=48".split()


def write_conll(path: Path, count: int, seed: int) -> Path:
    rows = tagged_rows(count, seed)
    sentences = [zip(row["tokens"], row["ner_tags"], strict=True) for row in rows]
    path.write_text("\n".join("".join(f"{w} {t}\n" for w, t in words) for words in sentences))
    return path


def write_csv(path: Path, count: int, seed: int) -> Path:
    rows = [f"{row['text']},{'|'.join(row['labels'])}\n" for row in label_set_rows(count, seed)]
    path.write_text("".join(["text,labels\n", *rows]))
    return path


@pytest.fixture(params=["token_classification", "multi_label"])
def command(request: pytest.FixtureRequest, base: Path, tmp_path: Path) -> tuple[str, list[str]]:
    """A task, and the recipe with its overrides."""
    task = request.param
    write, ending = {
        "token_classification": (write_conll, "conll"),
        "multi_label": (write_csv, "csv"),
    }[task]
    train, dev = (
        write(tmp_path / f"{name}.{ending}", count, seed)
        for name, count, seed in (("train", 24, 0), ("dev", 12, 1))
    )
    files = [f"model.name={base}", f"data.train={train}", f"data.validation={dev}"]
    return task, [f"recipes/{task}.yaml", *files, *TINY]


def test_a_dry_run_and_an_inspection_read_the_files(
    command: tuple[str, list[str]], run_cli: RunCli
) -> None:
    task, arguments = command
    plan = run_cli("train", *arguments, "--dry-run")
    assert plan.code == 0, plan.err
    best = {"token_classification": "f1", "multi_label": "micro_f1"}[task]
    assert f"{task}, best by {best}" in plan.out
    counts = {"token_classification": "classes  B-PLACE ", "multi_label": "classes  cat "}[task]
    assert counts in plan.out
    planned = run_cli("inspect", *arguments, "--json")
    assert planned.code == 0, planned.err
    assert json.loads(planned.out)["labels"][0] in counts


def test_a_mistake_in_a_file(
    command: tuple[str, list[str]], tmp_path: Path, error_of: Callable[..., str]
) -> None:
    task, arguments = command
    file = tmp_path / {"token_classification": "dev.conll", "multi_label": "dev.csv"}[task]
    file.write_text(
        file.read_text() + {"token_classification": "\ncat B-CAT\n"}.get(task, "x,dg\n")
    )
    message = error_of("train", *arguments, "--dry-run")
    assert f"{file}: unknown label in 1 row:\n  row 13 (line " in message
