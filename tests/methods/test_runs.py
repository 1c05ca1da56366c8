"""Every method from recipe to predictions, on tiny models of three families."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dcft_cli.adapter_file.contents import AdapterContents, Array, BaselineContents, Contents
from dcft_cli.adapter_file.read import read_adapter, read_contents
from dcft_cli.errors import AdapterFileError, DCFTError, MergeError, RecipeError, RunError
from dcft_cli.exporting.export import export
from dcft_cli.merging.merge import merge
from dcft_cli.prediction.predictor import load
from dcft_cli.recipe.methods import METHODS
from dcft_cli.runs.adapted import load_adapted
from dcft_cli.runs.push import push
from dcft_cli.training.machine import Machine
from tests.families import save_base, tokens
from tests.jobs import Job, recipe, train
from tests.methods.small import small
from tests.samples import rows_of

ADDS_LAYERS = ("houlsby", "pfeiffer")


def job_of(
    method: str, folder: Path, *more: str, family: str = "bert", run: str = "run", **how: Any
) -> Job:
    base = folder / "base"
    if not base.exists():
        save_base(base, family, initializer_range=0.1)
    settings = (f"adapter={small(method)}", "training.head_learning_rate=0.01", *more)
    return train(recipe("rte", folder, base, *settings), folder / run, **how)


def all_tensors(contents: Contents) -> dict[str, Array]:
    own: dict[str, Array] = {}
    if isinstance(contents, AdapterContents):
        own = {f"{n}.{f}": t for n, found in contents.factors.items() for f, t in found.items()}
    elif isinstance(contents, BaselineContents):
        own = dict(contents.tensors)
    return own | dict(contents.head)


@pytest.mark.parametrize("method", METHODS)
def test_what_it_trains_moves_and_nothing_else(method: str, tmp_path: Path) -> None:
    job = job_of(method, tmp_path)
    adapted = load_adapted(job.folder, (), data=False)
    assert adapted.method is not None
    trained = {n for n, p in adapted.method.parameters().items() if p.requires_grad}
    changed = set()
    for name, before in load_file(tmp_path / "base" / "model.safetensors").items():
        (inside,) = (n for n in adapted.method.base if n.endswith(f".{name}"))
        if not torch.equal(adapted.method.base[inside].detach(), before):
            changed.add(inside)
    assert changed <= trained
    assert bool(changed) == (method in ("full", "bitfit"))
    if method != "head":
        assert trained


def test_the_first_factor_of_lora_fa_does_not_move(tmp_path: Path) -> None:
    files = [
        job_of("lora_fa", tmp_path, f"training.max_steps={steps}", run=str(steps)).folder
        for steps in (1, 6)
    ]
    first, last = (all_tensors(read_contents(f / "adapter.safetensors")) for f in files)
    assert sum("lora_A" in name for name in first) == 12
    for name, tensor in first.items():
        assert np.array_equal(last[name], tensor) == ("lora_A" in name), name


def test_training_the_head_only_starts_from_the_fitted_head(tmp_path: Path) -> None:
    still = ("training.fit_head=auto", "training.head_learning_rate=1e-9", "training.max_steps=1")
    metrics = job_of("head", tmp_path, *still).metrics
    assert metrics["metrics"] == metrics["baselines"]["fitted_head"]


@pytest.mark.parametrize("method", METHODS)
def test_resuming_gives_what_an_uninterrupted_run_gives(method: str, tmp_path: Path) -> None:
    whole = job_of(method, tmp_path, run="whole")
    with pytest.raises(KeyboardInterrupt):
        job_of(method, tmp_path, run="stopped", stop_after=4)
    resumed = job_of(method, tmp_path, run="stopped", resume=True)
    assert resumed.metrics["last_metrics"] == whole.metrics["last_metrics"]
    files = (read_contents(job.folder / "adapter.safetensors") for job in (whole, resumed))
    expected, found = (all_tensors(contents) for contents in files)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-5, atol=1e-7, err_msg=name)


ADALORA = ("adapter={method: adalora, rank: 2, initial_rank: 4}", "training.eval_steps=5")


def test_adalora_resumes_after_its_ranks_are_final(tmp_path: Path) -> None:
    settings = (*ADALORA, "training.max_steps=20")  # final at step 14
    whole = job_of("adalora", tmp_path, *settings, run="whole")
    with pytest.raises(KeyboardInterrupt):
        job_of("adalora", tmp_path, *settings, run="stopped", stop_after=17)
    resumed = job_of("adalora", tmp_path, *settings, run="stopped", resume=True)
    files = (read_contents(job.folder / "adapter.safetensors") for job in (whole, resumed))
    expected, found = map(all_tensors, files)
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("stop", "steps"),
    [(26, 30), (6, 7)],  # ranks are to be final at steps 21 and 5; checkpoints are at 25 and 5
)
def test_adalora_resumed_with_fewer_steps_keeps_to_its_budget(
    stop: int, steps: int, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        job_of("adalora", tmp_path, *ADALORA, "training.max_steps=60", stop_after=stop)
    job = job_of("adalora", tmp_path, *ADALORA, f"training.max_steps={steps}", resume=True)
    last = job.folder / "checkpoints" / f"checkpoint-{steps}" / "adapter.safetensors"
    kept = [np.count_nonzero(t) for n, t in all_tensors(read_contents(last)).items() if "_E" in n]
    assert sum(kept) == 2 * len(kept)


@pytest.mark.parametrize(
    ("scores", "step"), [([0.9, 0.1, 0.2, 0.3], 5), ([0.1, 0.2, 0.9, 0.3], 15)]
)
def test_a_note_says_if_the_best_adalora_is_not_pruned(
    scores: list[float], step: int, tmp_path: Path
) -> None:
    metrics = job_of("adalora", tmp_path, *ADALORA, "training.max_steps=20", scores=scores).metrics
    assert metrics["best_step"] == step
    found = [note for note in metrics["notes"] if "before adalora's ranks were final" in note]
    assert len(found) == (step == 5)
    if found:
        mean = np.mean([*metrics["method_facts"]["ranks"].values()])
        assert mean > 2 and f"(step 14): its mean rank is {mean:.3g}, not 2" in found[0]


@pytest.mark.parametrize("method", METHODS)
def test_merging_gives_the_same_predictions_or_is_refused(method: str, tmp_path: Path) -> None:
    job = job_of(method, tmp_path)
    rows = [{k: v for k, v in r.items() if k != "label"} for r in rows_of("rte", 5, seed=3)]
    predicted = load(job.folder)(rows)
    assert len(predicted) == 5 and all("prediction" in row for row in predicted)
    out = tmp_path / "merged"
    if method in ADDS_LAYERS:
        with pytest.raises(MergeError, match=f"{method} adds layers"):
            merge(None, str(job.folder), str(out))
        assert not out.exists()
    else:
        assert merge(None, str(job.folder), str(out)).difference <= 1e-5


NOT_DECAYED = {
    "bitfit": {"bias"},
    "houlsby": {"bias"},
    "pfeiffer": {"bias"},
    "dora": {"lora_magnitude_vector.default.weight"},
    "sora": {"gate"},
    "psoft": {"psoft_R.default.vector_a", "psoft_R.default.vector_b"},
    "road": {"road_alpha.default"},
}


@pytest.mark.parametrize("method", METHODS)
def test_weight_decay_pulls_to_the_base_model(method: str, tmp_path: Path) -> None:
    decay = ("training.weight_decay=0.1", "training.max_steps=3")
    trainer = job_of(method, tmp_path, *decay).trainer
    names = {id(p): name for name, p in trainer.method.parameters().items()}
    by_decay: dict[float, set[str]] = {0.0: set(), 0.1: set()}
    for group in trainer.optimizer.param_groups:
        by_decay[group["weight_decay"]] |= {names[id(p)] for p in group["params"] if id(p) in names}
    if method == "full":
        assert all("bias" in name or "orm" in name for name in by_decay[0.0])
        return
    ends = NOT_DECAYED.get(method, set())
    assert {end for end in ends if any(n.endswith(end) for n in by_decay[0.0])} == ends
    assert all(name.endswith(tuple(ends)) for name in by_decay[0.0])
    assert not any(name.endswith(tuple(ends)) for name in by_decay[0.1])
    assert by_decay[0.1] or method in ("head", "bitfit")


@pytest.mark.parametrize("method", METHODS)
def test_the_scored_values_are_those_of_a_rounded_file(method: str, tmp_path: Path) -> None:
    job = job_of(method, tmp_path, "adapter.file_dtype=bfloat16", "training.max_steps=3")
    adapted = load_adapted(job.folder, (), data=False)
    assert adapted.method is not None
    scored, loaded = job.trainer.method, adapted.method
    for part in ("parameters", "head"):
        expected, found = getattr(scored, part)(), getattr(loaded, part)()
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name
    logits = [m.model.eval()(**tokens()).logits.detach() for m in (scored, loaded)]
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_in_mixed_precision(method: str, tmp_path: Path) -> None:
    """DeBERTa's attention fails if a layer returns float32 there."""
    settings = ("training.precision=bfloat16", "training.acceleration=off")
    job = job_of(method, tmp_path, *settings, family="deberta-v2")
    assert all(math.isfinite(p.loss or math.nan) for p in job.watcher.losses)
    assert {p.dtype for p in job.trainer.method.parameters().values()} <= {torch.float32}


@pytest.mark.parametrize("method", METHODS)
def test_no_method_trains_half_precision_weights(method: str, tmp_path: Path) -> None:
    half = "model.dtype=bfloat16"
    if method in ("full", "bitfit"):
        message = f"adapter.method={method} trains weights .* model.dtype=bfloat16"
        with pytest.raises(RecipeError, match=message) as caught:
            job_of(method, tmp_path, half)
        assert "training.precision=bfloat16" in caught.value.hint
        assert not (tmp_path / "run").exists()
    else:
        model = job_of(method, tmp_path, half, "training.max_steps=3").model
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_full_fine_tuning_refuses_packed_weights(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"full trains every weight .*quantization=8bit packs"):
        job_of("full", tmp_path, "model.quantization=8bit")


@pytest.mark.parametrize(
    ("method", "use"),
    [
        ("dora", "starts from whole"),
        ("psoft", "starts from whole"),
        ("full", "trains"),
        ("bitfit", "trains"),
    ],
)
def test_what_does_not_fit_a_split_base_is_refused_before_work(
    method: str, use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(torch.device("cpu"), 1, processes=2, is_main=True, precision="float32")
    monkeypatch.setattr("dcft_cli.runs.plan.find_machine", lambda *_: machine)
    with pytest.raises(RecipeError, match=f"{method} {use} weights of the base"):
        job_of(method, tmp_path, "training.shard_base=true")


@pytest.mark.parametrize("to", ["peft", "onnx"])
@pytest.mark.parametrize("method", ["lora", "psoft", "full", "houlsby"])
def test_exports_predict_the_same_or_are_refused(method: str, to: Any, tmp_path: Path) -> None:
    job, out = job_of(method, tmp_path), tmp_path / "out"
    refused = {
        ("full", "peft"): ("PEFT has no full", "dcft merge"),
        ("houlsby", "peft"): ("PEFT has no houlsby", "dcft merge"),
        ("houlsby", "onnx"): ("houlsby adds layers", "dcft predict"),
    }
    if (method, to) in refused:
        message, instead = refused[method, to]
        with pytest.raises(DCFTError, match=message) as caught:
            export(str(job.folder), str(out), to=to)
        assert instead in caught.value.hint
        assert not out.exists()
    else:
        assert export(str(job.folder), str(out), to=to).difference <= 1e-5


@pytest.mark.parametrize(("method", "merges"), [("lora", True), ("houlsby", False), ("dcft", True)])
def test_a_card_names_the_method(method: str, merges: bool, tmp_path: Path) -> None:
    card = push(str(job_of(method, tmp_path).folder), "user/name", dry_run=True).card
    assert f"A {method} adapter" in card or (method == "dcft" and "A DCFT adapter" in card)
    assert ("dcft merge hub://user/name" in card) == merges
    settings = {"lora": "| `adapter.rank` | 8 |", "houlsby": "| `adapter.bottleneck` | 8 |"}
    assert settings.get(method, "| `adapter.kernel_size` | 4 |") in card


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_takes_dcft_only_says_so(method: str, tmp_path: Path) -> None:
    file = job_of(method, tmp_path).folder / "adapter.safetensors"
    with pytest.raises(AdapterFileError, match=f"was trained by {method}"):
        read_adapter(file)


def test_a_run_of_another_method_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        job_of("bitfit", tmp_path, stop_after=4)
    with pytest.raises(RunError, match=r"adapter\.method: \"bitfit\" -> \"head\""):
        job_of("head", tmp_path, resume=True)
