"""`dcft predict` as it is typed: files, pipes, several processes, and what may happen to them."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcft_cli.prediction import request
from tests.cli.conftest import RunCli
from tests.prediction.adapters import LABELS, rows_for, save_folder
from tests.samples import Row, rows_of, write_rows

RunOf = Callable[[str], Path]
COLUMNS = ["sentence", "id", "prediction", "probability", "probabilities"]


def lines(text: str) -> list[Row]:
    return list(map(json.loads, text.splitlines()))


def texts(count: int) -> list[Row]:
    rows = rows_of("sst2", count, seed=5)
    return [{"sentence": row["sentence"], "id": f"n{number}"} for number, row in enumerate(rows)]


def start(*arguments: str, cwd: Path, processes: int = 1) -> subprocess.Popen[bytes]:
    """Start the command in a new process, or in several."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    several = launcher if processes > 1 else []
    return subprocess.Popen(
        [sys.executable, *several, "-m", "dcft_cli", "predict", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "CHUNK_ROWS", 4)


def write_csv(path: Path, rows: Sequence[Row], delimiter: str = ",") -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0], delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)
    return str(path)


@pytest.mark.usefixtures("small_chunks")
def test_files_of_every_format_give_the_same(
    run_cli: RunCli, run_of: RunOf, tmp_path: Path
) -> None:
    run, rows = str(run_of("sst2")), texts(11)
    plain = tmp_path / "rows.txt"
    plain.write_text("".join(f"{row['sentence']}\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    files = [
        write_rows(tmp_path / "rows.jsonl", rows),
        write_csv(tmp_path / "rows.csv", rows),
        write_csv(tmp_path / "rows.tsv", rows, "\t"),
        str(tmp_path / "rows.parquet"),
    ]
    first, *others = [lines(run_cli("predict", run, file).out) for file in files]
    assert [list(row) for row in first] == [COLUMNS] * 11
    assert [{name: row[name] for name in rows[0]} for row in first] == rows
    assert all(found == first for found in others)
    for row, expected in zip(lines(run_cli("predict", run, str(plain)).out), first, strict=True):
        assert row == {name: value for name, value in expected.items() if name != "id"}


def test_outputs_of_every_format_hold_the_same(
    run_cli: RunCli, run_of: RunOf, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", texts(5))
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        output = run_cli("predict", str(run_of("sst2")), rows, "-o", str(tmp_path / name))
        assert output.code == 0, output.err
        assert output.out.startswith(f"{tmp_path / name}: 5 rows, ") and output.err == ""
    first = lines((tmp_path / "out.jsonl").read_text())
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == first
    with (tmp_path / "out.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["probabilities.positive"] for row in table] == [
        str(row["probabilities"]["positive"]) for row in first
    ]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_texts_on_the_command_line(run_cli: RunCli, run_of: RunOf) -> None:
    found = run_cli("predict", str(run_of("sst2")), "--text", "good", "--text", "the film")
    assert [row["sentence"] for row in lines(found.out)] == ["good", "the film"]
    pair = ("--text", "where ?", "--text-pair", "in paris .")
    (row,) = lines(run_cli("predict", str(run_of("squad_v2")), *pair).out)
    assert list(row) == ["question", "context", "prediction", "start", "end", "score"]


def test_overrides_may_follow_the_adapter(run_cli: RunCli, run_of: RunOf, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"message": "good"}])
    run = str(run_of("sst2"))
    for arguments in ((file, "data.text=message"), ("data.text=message", "--text", "good")):
        (row,) = lines(run_cli("predict", run, *arguments).out)
        assert row["message"] == "good"


def test_words_of_a_conll_file(run_cli: RunCli, run_of: RunOf, tmp_path: Path) -> None:
    file = tmp_path / "words.conll"
    file.write_text("the\ncat\n\nparis\n")
    found = lines(run_cli("predict", str(run_of("token_classification")), str(file)).out)
    assert [row["tokens"] for row in found] == [["the", "cat"], ["paris"]]
    assert [len(row["prediction"]) for row in found] == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "There is nothing to predict"),
        (["rows.jsonl", "--text", "a"], "A file and --text"),
        (["nowhere.csv"], "There is no file nowhere.csv"),
        (["rows.jsonl", "-o", "rows.xlsx"], "rows.xlsx: the format does not follow"),
        (["rows.jsonl", "-o", "rows.jsonl"], "rows.jsonl would be overwritten"),
        (["rows.jsonl", "data.text=message"], "no column `message`"),
        (["--text", "a", "--text-pair", "b"], "takes one text, `sentence`"),
        (["rows.dat"], "the format of the file does not follow from its ending"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    error_of: Callable[..., str],
    run_of: RunOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", texts(2))
    (tmp_path / "rows.dat").touch()
    assert message in error_of("predict", str(run_of("sst2")), *arguments)


def test_pairs_need_a_second_text(
    error_of: Callable[..., str], run_of: RunOf, tmp_path: Path
) -> None:
    run = str(run_of("rte"))
    (tmp_path / "rows.txt").write_text("a\n")
    assert "takes pairs of texts" in error_of("predict", run, "--text", "a")
    assert "takes pairs of texts" in error_of("predict", run, str(tmp_path / "rows.txt"))


@pytest.mark.usefixtures("small_chunks")
def test_a_bad_row_is_found_before_the_first_is_predicted(
    error_of: Callable[..., str], run_of: RunOf, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [*texts(9), {"id": "n9", "sentence": ""}])
    output = tmp_path / "out.jsonl"
    output.write_text("before")
    for to_file in ([], ["-o", str(output)]):
        error = error_of("predict", str(run_of("sst2")), file, *to_file)
        assert "row 10 (line 10): `sentence` is empty" in error
    assert output.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "out.jsonl"}


def test_a_column_is_never_replaced(
    error_of: Callable[..., str], run_of: RunOf, tmp_path: Path
) -> None:
    many = [{"sentence": "a"}] * 2048  # more than are predicted at a time
    file = write_rows(tmp_path / "rows.jsonl", [*many, {"sentence": "a", "prediction": "old"}])
    # Found before the first row is predicted: `error_of` allows nothing on stdout.
    assert "has a column `prediction`" in error_of("predict", str(run_of("sst2")), file)
    file = write_rows(tmp_path / "rows.jsonl", [{"sentence": "a", "probabilities.negative": 0.9}])
    error = error_of("predict", str(run_of("sst2")), file, "--output", str(tmp_path / "out.csv"))
    assert "has a column `probabilities.negative`" in error


def test_blank_rows_are_counted(run_cli: RunCli, run_of: RunOf, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("sentence,id\ngood,1\n,\nbad,2\n")
    output = run_cli("predict", str(run_of("sst2")), str(file))
    assert [row["id"] for row in lines(output.out)] == ["1", "2"]
    assert output.err == "Note: blank rows left out: 1\n"


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the command find a text on standard input."""
    raw = io.BufferedReader(io.BytesIO(text.encode()))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))


def test_standard_input(
    run_cli: RunCli,
    error_of: Callable[..., str],
    run_of: RunOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = str(run_of("sst2"))
    feed(monkeypatch, Path(write_rows(tmp_path / "rows.jsonl", texts(3))).read_text())
    assert [row["id"] for row in lines(run_cli("predict", run, "-").out)] == ["n0", "n1", "n2"]
    feed(monkeypatch, "the film\n\nüber\n")
    found = run_cli("predict", run, "-", "--format", "text")
    assert [row["sentence"] for row in lines(found.out)] == ["the film", "über"]
    feed(monkeypatch, "sentence\ngood\n")
    assert lines(run_cli("predict", run, "-", "data.format=csv").out)[0]["sentence"] == "good"
    feed(monkeypatch, "the film was good\n")
    error = error_of("predict", run, "-")
    assert "Standard input is not JSON" in error and "--format text" in error
    feed(monkeypatch, "")
    assert run_cli("predict", run, "-").out == ""
    monkeypatch.setattr(sys, "stdin", None)  # as the shell's <&- leaves it
    assert "Standard input is closed" in error_of("predict", run, "-")


def test_a_reader_that_has_enough(run_of: RunOf, tmp_path: Path) -> None:
    """As `| head -1`: no error, and no lines in vain."""
    write_rows(tmp_path / "rows.jsonl", texts(3))
    with start(str(run_of("sst2")), "rows.jsonl", cwd=tmp_path) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_prediction_leaves_no_half_row(run_of: RunOf, tmp_path: Path) -> None:
    """Killed when some rows are written: the earlier file stays, and the lines are whole."""
    output = tmp_path / "out.jsonl"
    output.write_text("before")
    rows = Path(write_rows(tmp_path / "rows.jsonl", texts(1500))).read_bytes()
    with start(str(run_of("sst2")), "-", "-o", output.name, cwd=tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(rows)
        process.stdin.flush()  # but not closed: the command waits for more
        while not any(path.stat().st_size for path in tmp_path.glob(".out.jsonl.*/0")):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert output.read_text() == "before"
    (part,) = tmp_path.glob(".out.jsonl.*/0")
    assert len(lines(part.read_text())) == request.CHUNK_ROWS


@pytest.mark.skipif(
    sys.platform != "linux", reason="several processes are tested with gloo on Linux"
)
def test_two_processes_predict_as_one(run_cli: RunCli, run_of: RunOf, tmp_path: Path) -> None:
    run = str(run_of("token_classification"))
    file = write_rows(tmp_path / "rows.jsonl", rows_of("token_classification", 13, seed=2))
    one = lines(run_cli("predict", run, file).out)
    with start(run, file, "-o", "two.jsonl", cwd=tmp_path, processes=2) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err.decode()
    # torch 2.8's gloo writes lines of its own to stdout.
    assert out.decode().splitlines()[-1].startswith("two.jsonl: 13 rows, ")
    two = lines((tmp_path / "two.jsonl").read_text())
    for name in ("tokens", "prediction"):
        assert [row[name] for row in two] == [row[name] for row in one]


def test_processes_cannot_share_a_pipe(
    error_of: Callable[..., str], run_of: RunOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun sets it
    for arguments in (("--text", "a"), ("-", "-o", "out.jsonl")):
        error = error_of("predict", str(run_of("sst2")), *arguments)
        assert "cannot share standard input or stdout" in error


def test_rows_that_name_their_adapter(run_cli: RunCli, base: Path, tmp_path: Path) -> None:
    options = ["--adapters", str(save_folder(base, tmp_path)), "--adapter-column", "tenant"]
    rows = [{"id": n, **row} for n, row in enumerate(rows_for("classification", 9))]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    found = lines(run_cli("predict", *options, file).out)
    for row, line in zip(rows, found, strict=True):
        assert line | row == line
        assert list(line["probabilities"]) == LABELS[row["tenant"]]
        assert line["prediction"] in LABELS[row["tenant"]]
    output = tmp_path / "out.csv"
    run_cli("predict", *options, file, "data.max_length=16", "-o", str(output))
    header = output.read_text().splitlines()[0]
    assert header.startswith("id,text,tenant,prediction,probability,probabilities.no")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--adapters", "runs", "rows.csv"],
        ["--adapter-column", "tenant", "runs/a", "rows.csv"],
        ["--adapters", "runs", "--adapter-column", "tenant", "--text", "good"],
        [],
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], error_of: Callable[..., str]
) -> None:
    error = error_of("predict", *arguments)
    assert "belong together" in error or "No adapter is named" in error
