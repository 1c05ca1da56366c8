"""What makes two runs the same."""

from pathlib import Path

import pytest

from dcft_cli.errors import DataError
from dcft_cli.sweeping.keys import cell_key, check_rows
from tests.samples import rows_of, write_rows
from tests.sweeping.sweeps import planned

RTE = Path("recipes/rte.yaml")


def key(*overrides: str, recipe: Path = RTE, **arguments: object) -> str:
    return cell_key(planned(recipe, overrides, **arguments).cells[0])


def test_settings_count() -> None:
    assert key() == key()
    assert key("adapter.rank=2") != key()
    assert key("data.config=mrpc") != key()
    assert key("data.revision=abc") != key()
    assert key("training.seed=7") != key()
    tune = {"tune": ["training.weight_decay=0..0.1"], "trials": 2}
    assert key(**tune) != key()
    assert key(**{**tune, "trials": 9}) == key(**tune)


def test_where_a_run_computes_does_not_count() -> None:
    elsewhere = ("device=cpu", "num_workers=0", "output=elsewhere", "report_to=[wandb]")
    assert key(*(f"training.{setting}" for setting in elsewhere)) == key()


def test_rows_count_wherever_they_are(tmp_path: Path) -> None:
    rows = rows_of("rte", 6)
    here = write_rows(tmp_path / "here" / "train.jsonl", rows)
    there = write_rows(tmp_path / "there" / "other.jsonl", rows)
    changed = write_rows(tmp_path / "train.jsonl", [*rows[:-1], rows[-1] | {"label": 0}])
    first = key(f"data.train={here}")
    assert key(f"data.train={there}") == first
    assert key(f"data.train={changed}") != first
    assert key(f"data.validation={here}") != first
    sets = f"data.validation={{a: {here}, b: {there}}}"
    assert key(sets) != key(sets.replace(there, changed))
    write_rows(tmp_path / "here" / "train.jsonl", rows[:-1])
    assert key(f"data.train={here}") != first, "the file has changed in the meantime"


def test_missing_files_are_listed(tmp_path: Path) -> None:
    there = write_rows(tmp_path / "there.jsonl", rows_of("rte", 6))
    cells = planned(RTE, [f"data.validation={there}"], grid=["data.train=a.jsonl,b.jsonl"]).cells
    with pytest.raises(DataError) as error:
        check_rows(cells)
    assert "do not exist: a.jsonl, b.jsonl." in error.value.message
    check_rows(planned(RTE).cells)  # on the Hub


def test_there_must_be_rows_to_score(tmp_path: Path) -> None:
    there = write_rows(tmp_path / "there.jsonl", rows_of("rte", 6))
    with pytest.raises(DataError, match="no rows to score"):
        check_rows(planned(RTE, ["data.hub=null", f"data.train={there}"]).cells)
