"""AdaLoRA: LoRA in the form of an SVD, whose ranks shrink to a budget while it trains."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.adapter_file.contents import Contents
from dcft_cli.errors import RecipeError, TrainingError
from dcft_cli.methods.peft_method import ADAPTER, PEFTMethod
from dcft_cli.targets.resolve import Target

_SENSITIVITY, _UNCERTAINTY, _KEPT = "sensitivity:", "uncertainty:", "kept:"


class AdaLoRA(PEFTMethod):
    """dW = scale P diag(E) Q. Zhang et al. 2023 (arXiv 2303.10512), sections 3.1 to 3.3.

    Every layer starts at `initial_rank`. From `pruning_start` to `pruning_end` the entries of E
    with the lowest importance in the whole model are set to zero, until `rank` are left in the
    average layer. PEFT calls Q lora_A, E lora_E and P lora_B.
    """

    @property
    def initial_rank(self) -> int:
        """Return the rank of each layer at the start."""
        rank = self.settings.rank
        return self.settings.initial_rank or rank + max(1, rank // 2)

    def schedule(self) -> tuple[int, int, int]:
        """Return the last step before pruning, the one that makes ranks final, and all steps.

        Raises:
            RecipeError: pruning ends before it starts, at the first step, which knows no importance
                yet, or after the training.
        """
        total = self.total_steps
        if total is None:  # not training; PEFT wants a schedule that it does not use
            return 0, 1, 1
        start = _step(self.settings.pruning_start, total)
        end = _step(self.settings.pruning_end, total)
        if not max(start, 1) < end <= total:
            raise RecipeError(
                f"adalora would prune from step {start} to step {end}, of {total}.",
                "Set adapter.pruning_start < adapter.pruning_end <= the number of steps "
                "(below 1: shares of it), and the end to step 2 or later.",
            )
        return start, end, total

    def config(self) -> Any:
        """Return PEFT's configuration, which divides alpha by the initial rank."""
        from peft import AdaLoraConfig

        start, end, total = self.schedule()
        alpha: Any = self.settings.scale * self.initial_rank
        return AdaLoraConfig(
            **self.targets_as_stored(),
            target_r=self.settings.rank,
            init_r=self.initial_rank,
            lora_alpha=alpha,
            lora_dropout=self.settings.dropout,
            orth_reg_weight=self.settings.orthogonality,
            tinit=start,
            tfinal=total - end,
            deltaT=self.settings.pruning_interval,
            total_step=total,
        )

    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Insert PEFT's layers; what they divide by stays constant."""
        super().insert(model, targets)
        for name in self.layers:
            layer: Any = model.get_submodule(name)
            # PEFT's cast of half precision to float32 makes it trainable.
            layer.ranknum.requires_grad_(False)

    def penalty(self) -> Tensor | None:
        """Return the weighted mean of |P^T P - I| and |Q Q^T - I| over all layers.

        This is PEFT's form of Eq. 4, whose norms are squared and summed. PEFT adds it in the
        forward pass of its wrapper, which is not used here.
        """
        if not self.settings.orthogonality:
            return None
        norms = []
        for name in self.layers:
            layer: Any = self.model.get_submodule(name)
            left, right = layer.lora_B[ADAPTER], layer.lora_A[ADAPTER]
            for gram in (left.mT @ left, right @ right.mT):
                identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
                norms.append(torch.linalg.matrix_norm(gram - identity))
        return self.settings.orthogonality * torch.stack(norms).mean()

    def after_step(self, step: int) -> None:
        """Update the importance of every triplet, and prune to the budget of this step.

        Raises:
            TrainingError: the ranks are to be final, and no step has had finite gradients.
        """
        for parameter in self.parameters().values():
            if parameter.requires_grad and parameter.grad is None:  # the loss does not depend on it
                parameter.grad = torch.zeros_like(parameter)
        _, end, _ = self.schedule()
        if step < end and self.was_skipped():
            return  # importances are smoothed, and would stay NaN
        if step >= end:
            # PEFT makes ranks final at the end exactly. A run that is resumed with fewer steps may
            # be past it already.
            step = end + 1 if self._is_pruned() else end
        if step == end and not self.wrapper.base_model.rankallocator.exp_avg_ipt:
            raise TrainingError(
                f"adalora makes its ranks final at step {end}, and no step before it had finite "
                "gradients to choose them by.",
                "Raise adapter.pruning_end, or train without training.precision=float16.",
            )
        self.wrapper.base_model.update_and_allocate(step)

    def state(self) -> dict[str, Tensor]:
        """Return the smoothed importance of each value, and the triplets kept last."""
        allocator, kept = self.wrapper.base_model.rankallocator, self._config.rank_pattern or {}
        state = {_SENSITIVITY + name: value for name, value in allocator.exp_avg_ipt.items()}
        state |= {_UNCERTAINTY + name: value for name, value in allocator.exp_avg_unc.items()}
        return state | {_KEPT + name: torch.tensor(mask) for name, mask in kept.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        allocator = self.wrapper.base_model.rankallocator
        parameters = dict(self.wrapper.base_model.model.named_parameters())
        for prefix, smoothed in (
            (_SENSITIVITY, allocator.exp_avg_ipt),
            (_UNCERTAINTY, allocator.exp_avg_unc),
        ):
            for name, value in _under(prefix, state).items():
                smoothed[name] = value.to(parameters[name].device)
        # Recomputed at each step; PEFT only checks that it is there.
        allocator.ipt = {name: torch.zeros_like(v) for name, v in allocator.exp_avg_ipt.items()}
        kept = {name: mask.tolist() for name, mask in _under(_KEPT, state).items()}
        self._config.rank_pattern = kept or None

    def load(self, contents: Contents) -> None:
        """Copy the tensors of a file; which triplets were kept last, they show themselves."""
        super().load(contents)
        self._config.rank_pattern = None

    def facts(self) -> dict[str, Any]:
        """Return the rank of each layer, and the number of values that are left."""
        ranks = {}
        values = 0
        for name, matrix in self.layers.items():
            layer: Any = self.model.get_submodule(name)
            ranks[name] = int(layer.lora_E[ADAPTER].count_nonzero())
            values += ranks[name] * (matrix.out_features + matrix.in_features + 1)
        return {"ranks": ranks, "parameters_left": values}

    def notes(self, step: int) -> list[str]:
        """Return a note if the ranks of this step are those of an unfinished schedule."""
        _, end, _ = self.schedule()
        if step >= end:
            return []
        mean = fmean(self.facts()["ranks"].values())
        return [
            f"The best checkpoint is that of step {step}, before adalora's ranks were final (step "
            f"{end}): its mean rank is {mean:.3g}, not {self.settings.rank}. Lower "
            "adapter.pruning_end or train longer, for more scores of the final ranks."
        ]

    def _is_pruned(self) -> bool:
        """Return whether no more triplets are kept than the budget has."""
        kept = self._config.rank_pattern
        budget: int = self.wrapper.base_model.rankallocator.target_bgt
        return kept is not None and sum(map(sum, kept.values())) <= budget

    @property
    def _config(self) -> Any:
        return self.wrapper.peft_config[ADAPTER]


def _step(setting: float, total: int) -> int:
    """Return the step that a setting names: below 1 as a share of all."""
    return round(setting * total) if setting < 1 else int(setting)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
