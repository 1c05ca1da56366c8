"""How much of the first gradient of a weight each kind of increment can follow.

    python benchmarks/gradient_share.py --data GLUE

writes benchmarks/gradient_share.csv: for G = dL/dW of every adapted layer of MiniLM, with a fitted
head, over 512 rows of SST-2, the share <G, X>^2 / (|G|^2 |X|^2) (Frobenius) of the increment X of
each kind that has the largest; the mean over the layers of a role, and the values trained in all.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch
from learning import MINILM
from torch import Tensor

RESULTS = Path(__file__).parent / "gradient_share.csv"
ROWS = 512


def dcft(kernel_size: int) -> Callable[[Tensor], tuple[float, int]]:
    """(BA) (x) C at rank 1 and stride = kernel size: |A| = |B| = |C| = 1 makes |X| = 1."""
    from dcft_cli import DCFTConfig
    from dcft_cli.adapter.functional import place_windows
    from dcft_cli.adapter.initialization import leading_factors
    from dcft_cli.adapter_file.spec import Module

    def share(gradient: Tensor) -> tuple[float, int]:
        A, B = leading_factors(gradient, kernel_size=kernel_size, stride=kernel_size, rank=1)
        right = place_windows(A, kernel_size, kernel_size, gradient.shape[1])
        left = place_windows(B.mT, kernel_size, kernel_size, gradient.shape[0])
        slope = (left @ gradient @ right.mT).square().sum()
        values = Module("", "", *gradient.shape, "").parameters(DCFTConfig(kernel_size=kernel_size))
        return float(slope / gradient.square().sum()), values

    return share


def lokr(factor: int) -> Callable[[Tensor], tuple[float, int]]:
    """C (x) (BA): DCFT's form with features in another order."""

    def order(size: int) -> Tensor:
        return torch.arange(size).view(factor, -1).mT.flatten()

    def share(gradient: Tensor) -> tuple[float, int]:
        rows, columns = map(order, gradient.shape)
        return dcft(factor)(gradient[rows][:, columns])

    return share


def lora(gradient: Tensor) -> tuple[float, int]:
    """BA at rank 1."""
    values = torch.linalg.svdvals(gradient).square()
    return float(values[0] / values.sum()), sum(gradient.shape)


def ordered(gradient: Tensor) -> tuple[float, int]:
    """DCFT, features sorted by the first singular vectors: what an order could give."""
    U, _, V = torch.linalg.svd(gradient, full_matrices=False)
    return dcft(8)(gradient[U[:, 0].argsort()][:, V[0].argsort()])


FORMS = {
    **{f"dcft d={d}": dcft(d) for d in (2, 4, 8, 12, 16)},
    "lokr factor 8": lokr(8),
    "dcft d=8, ordered": ordered,
    "lora r=1": lora,
}


def gradients(data: Path) -> dict[str, tuple[str, Tensor]]:
    """Role and G of every layer, by its name."""
    from transformers import set_seed

    from dcft_cli.models.loading import load_model
    from dcft_cli.recipe import recipe_from_mapping
    from dcft_cli.recipe.loading import LoadedRecipe
    from dcft_cli.runs.adapter_plan import adapter_config
    from dcft_cli.runs.plan import plan_training
    from dcft_cli.runs.start import constant_prediction, fit_task_head, training_batches
    from dcft_cli.targets.gradients import weight_gradients
    from dcft_cli.targets.resolve import find_targets

    with tempfile.TemporaryDirectory() as scratch:
        lines = (data / "sst2/train.jsonl").read_text("utf-8").splitlines(keepends=True)[:ROWS]
        assert all(map(json.loads, lines))
        (Path(scratch) / "train.jsonl").write_text("".join(lines), "utf-8")
        recipe = recipe_from_mapping(
            {
                "model": {"name": MINILM},
                "task": {"name": "sst2"},
                "data": {"train": f"{scratch}/train.jsonl"},
                "training": {"device": "cpu"},
            },
            "gradient share",
        )
        plan = plan_training(LoadedRecipe(recipe, "share", Path(scratch)), output=f"{scratch}/run")
        preparation, machine = plan.preparation, plan.machine
        set_seed(recipe.training.seed)
        base = load_model(recipe.model, preparation.config, preparation.auto_class)
        names = adapter_config(recipe.adapter).targets
        targets = find_targets(base.model, names, exclude=base.missing_keys)
        prior, _ = constant_prediction(preparation)
        fit_task_head(base, preparation, machine, prior)
        batches = list(training_batches(base.model.eval(), preparation, machine, ROWS, 32))
    found = weight_gradients(base.model, [target.matrix for target in targets], batches)
    return {
        target.name: (target.role, gradient)
        for target, gradient in zip(targets, found, strict=True)
        if gradient is not None
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    found = gradients(parser.parse_args().data)
    roles = list(dict.fromkeys(role for role, _ in found.values()))
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["form", "values", *roles, "all"])
        for name, form in FORMS.items():
            shares = [(role, *form(gradient)) for role, gradient in found.values()]
            by_role = [mean(share for other, share, _ in shares if other == r) for r in roles]
            values = sum(count for _, _, count in shares)
            everywhere = mean(share for _, share, _ in shares)
            row = [name, values, *(f"{share:.4f}" for share in (*by_role, everywhere))]
            writer.writerow(row)
            print(*row, flush=True)


if __name__ == "__main__":
    main()
