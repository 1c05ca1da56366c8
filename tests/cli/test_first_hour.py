"""What a new user runs before the first training."""

import csv
import json
import os
import shlex
from pathlib import Path

import pytest

from dcft_cli.recipe.settings import SCHEMA_FILE, schema_text, settings
from tests.cli.conftest import RunCli, shell
from tests.samples import text_rows


@pytest.fixture
def tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A csv file whose name needs quotes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    with Path("my tickets.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "queue", "priority"])
        for number, row in enumerate(text_rows("sst2", 60)):
            writer.writerow([number, row["sentence"], "ab"[row["label"]], "xyz"[number % 3]])
    return "my tickets.csv"


def test_from_a_file_to_a_plan(tickets: str, base: Path, tmp_path: Path) -> None:
    """In new processes, with the commands that are printed."""
    unclear = shell("init", tickets, cwd=tmp_path)
    assert (unclear.code, unclear.out) == (2, "")
    assert "\n  priority: 3 different values\n" in unclear.err
    assert unclear.err.endswith("Hint: Name it: dcft init 'my tickets.csv' --label COLUMN\n")
    done = shell("init", tickets, "--label", "queue", "--model", str(base), cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    facts, _, commands = done.out.partition("Next:\n")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in facts.splitlines() if line}
    assert lines["data"] == "my tickets.csv: 60 rows, columns id, text, queue, priority"
    assert lines["label"] == "queue (2 different values)"
    assert lines["task"] == "classification"
    assert lines["recipe"] == "my tickets.yaml"
    dry_run, train = (shlex.split(line) for line in commands.splitlines())
    assert dry_run == ["dcft", "train", "my tickets.yaml", "--dry-run"] and dry_run[:3] == train
    plan = shell(*dry_run[1:], cwd=tmp_path)
    assert (plan.code, plan.err.startswith("Note: data.max_length")) == (0, True), plan.err
    assert "runs/my tickets" in plan.out
    again = shell("init", tickets, "--label", "queue", cwd=tmp_path)
    assert again.code == 2 and "--overwrite" in again.err


def test_validate_tells_the_good_from_the_bad(run_cli: RunCli, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("model:\n  name: m\ntask:\n  nam: rte\n", "utf-8")
    good = run_cli("validate", "recipes/rte.yaml", "recipes/cola.yaml")
    assert (good.code, good.err) == (0, "")
    assert good.out == "ok       recipes/rte.yaml\nok       recipes/cola.yaml\n"
    mixed = run_cli("validate", "recipes/rte.yaml", str(bad), "nowhere.yaml")
    assert (mixed.code, mixed.err) == (2, "")
    assert f"ok       recipes/rte.yaml\ninvalid  {bad}\n  {bad}:4: task.nam: unknown" in mixed.out
    assert "invalid  nowhere.yaml\n  There is no recipe nowhere.yaml." in mixed.out
    output = run_cli("validate", "recipes/rte.yaml", str(bad), "--json")
    first, second = json.loads(output.out)["recipes"]
    assert output.code == 2
    assert first == {"recipe": "recipes/rte.yaml", "valid": True, "error": None, "hint": None}
    assert (second["valid"], "task.nam" in second["error"]) == (False, True)


def test_recipes_are_listed_shown_and_copied(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listed = run_cli("recipes", "list")
    lines = dict(line.split(maxsplit=1) for line in listed.out.splitlines())
    assert lines["recipes/rte.yaml"].startswith("RTE with DeBERTaV3-base: ")
    assert "mrpc.yaml, qnli.yaml" in lines["recipes/roberta-large/"]
    assert lines["recipes/paper/"] == "41 recipes: dcft recipes list paper"
    assert len(json.loads(run_cli("recipes", "list", "--json").out)["recipes"]) == 70
    tables = run_cli("recipes", "list", "paper").out.splitlines()
    assert [line.split(maxsplit=1)[0] for line in tables] == [
        *("recipes/paper/figure2/", "recipes/paper/figure3/"),
        *(f"recipes/paper/table{number}/" for number in range(1, 7)),
    ]
    strides = run_cli("recipes", "list", "paper/table5").out
    assert "recipes/paper/table5/rte.yaml" in strides and "strides 1 to 8" in strides
    assert "There are: " in run_cli("recipes", "list", "papers").err
    shown = run_cli("recipes", "show", "rte")
    assert "task:\n  name: rte\n" in shown.out
    copied = run_cli("recipes", "copy", "rte")
    assert (copied.code, Path("rte.yaml").is_file(), Path(SCHEMA_FILE).is_file()) == (0, True, True)
    assert "dcft train rte.yaml --dry-run" in copied.out
    assert run_cli("recipes", "copy", "rte").code == 2
    copied = run_cli("recipes", "copy", "paper/table5/rte")
    assert "dcft sweep paper-table5-rte.yaml --dry-run" in copied.out


def test_the_schema_is_printed_as_it_is(run_cli: RunCli) -> None:
    assert run_cli("schema").out == schema_text()


def test_the_help_lists_every_setting(run_cli: RunCli) -> None:
    output = run_cli("train", "--help-settings")
    assert (output.code, output.err) == (0, "")
    text = " ".join(output.out.split())
    for setting in settings():
        assert setting.key in text and setting.description in text
    assert "training.learning_rate number (default 0.005)" in text
    assert "model.name text (required)" in text


def test_the_environment_for_a_bug_report(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    output = run_cli("env")
    assert (output.code, output.err) == (0, "")
    assert all(word in output.out for word in ("torch", "CPU", "free", "CUDA_VISIBLE_DEVICES="))
    found = json.loads(run_cli("env", "--json").out)
    assert found["versions"]["python"].count(".") == 2
    assert found["folders"]["encoded rows"] == {"path": None, "free_bytes": None}
    assert found["folders"]["current folder"]["free_bytes"] > 0
    assert "secret" not in output.out + json.dumps(found)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("dcft tra", ["train"]),
        ("dcft train recipes/rt", ["recipes/rte.yaml"]),
        ("dcft train ./m", ["./mine.yaml", "./models/"]),
        ("dcft train x.yaml training.ep", ["training.epochs="]),
        ("dcft recipes show recipes/roberta-large/mr", ["recipes/roberta-large/mrpc.yaml"]),
        ("dcft train x.yaml --res", ["--resume"]),
    ],
)
def test_the_shell_completes(
    typed: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "mine.csv").touch()
    (tmp_path / "models").mkdir()
    for name, value in {
        "_DCFT_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }.items():
        monkeypatch.setitem(os.environ, name, value)
    assert shell(cwd=tmp_path).out.split() == expected
