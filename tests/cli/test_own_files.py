"""The recipes for own files on the command line: plan, train, evaluate, inspect, merge."""

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


def test_from_plan_to_merged_model(
    command: tuple[str, list[str]], base: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    task, arguments = command
    plan = run_cli("train", *arguments, "--dry-run")
    assert plan.code == 0, plan.err
    best = {"token_classification": "f1", "multi_label": "micro_f1"}[task]
    assert f"{task}, best by {best}" in plan.out
    counts = {"token_classification": "classes  B-PLACE ", "multi_label": "classes  cat "}[task]
    assert counts in plan.out
    run, merged = str(tmp_path / "run"), str(tmp_path / "merged")
    trained = run_cli("train", *arguments, "--output", run)
    assert trained.code == 0, trained.err
    scores = json.loads(run_cli("eval", run, "--json").out)
    assert scores["task"] == task
    assert (
        scores["metrics"] == json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    )
    planned = run_cli("inspect", arguments[0], *arguments[1:], "--json")
    assert planned.code == 0, planned.err
    labels = json.loads(planned.out)["labels"]
    assert labels == json.loads(run_cli("inspect", run, "--json").out)["labels"]
    folded = run_cli("merge", str(base), run, merged)
    assert folded.code == 0, folded.err


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
