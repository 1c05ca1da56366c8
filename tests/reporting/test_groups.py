"""Groups of runs that differ only by seed, tables that keep tasks apart, and their names."""

from pathlib import Path

from dcft_cli.reporting.collect import collect
from dcft_cli.reporting.groups import Table, make_tables, method_settings, name_groups
from tests.reporting.runs import write_run


def tables(root: Path) -> list[Table]:
    return make_tables(collect([str(root)])[0])[0]


def test_seed_output_and_device_make_no_group(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "training.output=x", seed=2)
    write_run(tmp_path / "b", "training.device=cpu", "training.num_workers=2", seed=1)
    ((group,),) = (table.groups for table in tables(tmp_path))
    assert group.name == "dcft"
    assert list(group.runs) == [1, 2]


def test_groups_are_named_by_what_differs_smallest_number_first(tmp_path: Path) -> None:
    for kernel in (12, 2, 8):
        write_run(tmp_path / f"d{kernel}", f"adapter.kernel_size={kernel}")
    write_run(tmp_path / "targets", "adapter.kernel_size=2", "adapter.targets=[Q,V]")
    (table,) = tables(tmp_path)
    assert [group.name for group in table.groups] == [
        "dcft kernel_size=2 targets=Q,K,V,O,FFN",
        "dcft kernel_size=2 targets=Q,V",
        "dcft kernel_size=8 targets=Q,K,V,O,FFN",
        "dcft kernel_size=12 targets=Q,K,V,O,FFN",
    ]


def test_names_of_several_methods() -> None:
    dcft = {"adapter.method": "dcft", "adapter.kernel_size": 8, "training.learning_rate": 5e-3}
    lora = {"adapter.method": "lora", "adapter.rank": 1, "training.learning_rate": 1e-3}
    larger = lora | {"adapter.rank": 8}
    assert name_groups([dcft, lora]) == ["dcft", "lora"]
    assert name_groups([lora, dcft, larger]) == ["lora rank=1", "dcft", "lora rank=8"]
    unset = {"adapter.method": "dcft", "adapter.kernel_size": 8}
    assert name_groups([unset | {"adapter.stride": 4}, unset]) == ["dcft stride=4", "dcft"]
    near = [{"adapter.method": "dcft", "adapter.scale": v} for v in (1.0, 1.00000001)]
    assert name_groups(near) == ["dcft scale=1", "dcft scale=1.00000001"]
    same_end = {"adapter.method": "dcft", "training.seed": 1, "data.seed": 1}
    other = {"adapter.method": "dcft", "training.seed": 2, "data.seed": 2}
    assert name_groups([same_end, other])[1] == "dcft training.seed=2 data.seed=2"


def test_settings_that_differ_between_methods() -> None:
    dcft = {"adapter.method": "dcft", "adapter.kernel_size": 8, "training.learning_rate": 5e-3}
    lora = {"adapter.method": "lora", "adapter.rank": 1, "training.learning_rate": 1e-3}
    lora |= {"training.epochs": 3.0}
    smaller = dcft | {"adapter.kernel_size": 2}
    assert method_settings([dcft, smaller]) == {}
    assert method_settings([dcft, lora, smaller]) == {
        "dcft": ["learning_rate=0.005"],
        "lora": ["learning_rate=0.001"],
    }
    slower = lora | {"training.learning_rate": 1e-4}  # in the names of the groups
    assert method_settings([dcft, lora, slower]) == {}


OTHER_ROWS = {"train": "t", "validation": {"validation": "changed since"}}


def test_tasks_data_models_and_rows_are_separate(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "model", "model.name=other/model")
    write_run(tmp_path / "data", "data.train=others.csv")
    write_run(tmp_path / "holdout", "data.holdout={fraction: 0.1}")
    write_run(tmp_path / "rows", row_hashes=OTHER_ROWS)
    write_run(tmp_path / "metric", "task.metric=macro_f1", main_metric="macro_f1")
    assert [len(table.runs) for table in tables(tmp_path)] == [1] * 6


def test_of_repeated_cells_the_latest_counts(tmp_path: Path) -> None:
    write_run(tmp_path / "a", best=0.6, finished=200)
    write_run(tmp_path / "b", best=0.7, finished=300)
    write_run(tmp_path / "c", best=0.8, finished=100)
    write_run(tmp_path / "d", best=0.9, seed=2)
    (table,), repeated = make_tables(collect([str(tmp_path)])[0])
    assert [run.best for run in table.runs] == [0.7, 0.9]
    assert {run.folder.name for run in repeated} == {"a", "c"}
    assert all("same settings and seed as" in run.reason for run in repeated)
