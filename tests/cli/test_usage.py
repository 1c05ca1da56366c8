"""Mistakes in a command line are told like all others, with what to type instead."""

import json
from collections.abc import Callable

import pytest

from tests.cli.conftest import RunCli


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ("fly", ["No such command 'fly'", "All commands: ", "--help"]),
        ("trian", ["Did you mean 'train'?"]),
        ("recipes shw", ["Did you mean 'show'?", "recipes --help"]),
        ("train", ["Missing argument 'RECIPE'", "Usage: ", "train --help"]),
        ("merge base", ["give ADAPTER and OUT", "Usage: "]),
        ("train a --no-such-option", ["No such option: --no-such-option", "Usage: "]),
        ("train a --resum", ["Did you mean --resume?"]),
        ("train a --ouput b", ["Did you mean --output?"]),
        ("train a --output", ["'--output' requires an argument", "Hint: "]),
        ("merge a b c --dtype int8", ["Invalid value", "int8", "bfloat16"]),
        ("predict a b --limit 2", ["No such option: --limit", "Usage: ", "predict --help"]),
        ("train a --max_step 2", ["training.max_steps=VALUE"]),
        ("merge a b c --lr 3", ["No such option: --lr", "Usage: "]),
        ("export a b", ["Missing option '--to'. Choose from: peft, onnx"]),
    ],
)
def test_mistakes_in_a_command_line(
    error_of: Callable[..., str], arguments: str, messages: list[str]
) -> None:
    output = error_of(*arguments.split())
    assert all(message in output for message in messages), output


@pytest.mark.parametrize(
    ("option", "setting"),
    [
        ("--lr", "training.learning_rate"),
        ("--lr=5e-4", "training.learning_rate"),
        ("--learning_rate", "training.learning_rate"),
        ("--learning-rate", "training.learning_rate"),
        ("--training.learning_rate", "training.learning_rate"),
        ("--batch-size", "training.batch_size"),
        ("--epoch", "training.epochs"),
        ("--num_train_epochs", "training.epochs"),
        ("--seed", "training.seed"),
        ("--model", "model.name"),
        ("--threshold", "task.threshold"),
    ],
)
def test_settings_given_as_options(error_of: Callable[..., str], option: str, setting: str) -> None:
    output = error_of("train", "something", option, "3")
    assert f"No such option: {option.partition('=')[0]}. " in output
    assert f"Write {setting}=VALUE" in output


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_commands_that_score_suggest_what_they_use(
    error_of: Callable[..., str], command: str
) -> None:
    assert "Write training.precision=VALUE" in error_of(command, "a", "--precision", "float32")
    assert "Usage: " in error_of(command, "a", "--lr", "3")


@pytest.mark.parametrize(
    "arguments",
    ["inspect --json", "inspect x --jsn --json", "eval a --lr 3 --json", "recipes lst --json"],
)
def test_with_json_they_are_json(run_cli: RunCli, arguments: str) -> None:
    output = run_cli(*arguments.split())
    error = json.loads(output.out)
    assert output.code == 2
    assert output.err == f"Error: {error['error']}\nHint: {error['hint']}\n"


@pytest.mark.parametrize("arguments", [(), ("recipes",)])
def test_without_a_command_the_help_is_shown(run_cli: RunCli, arguments: tuple[str, ...]) -> None:
    output = run_cli(*arguments)
    assert (output.code, output.err) == (2, "")
    assert "Usage: " in output.out and "show" in output.out


@pytest.mark.parametrize("arguments", [("--help",), ("train", "--help"), ("recipes", "--help")])
def test_flags_are_shown_without_a_type(run_cli: RunCli, arguments: tuple[str, ...]) -> None:
    output = run_cli(*arguments)
    assert output.code == 0 and "<bool>" not in output.out
