"""transformers' Trainer with the orthogonality term, adapter-only checkpoints and our scoring."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME

from dcft_cli.adapter.inject import adapter_layers
from dcft_cli.adapter.merge import merged
from dcft_cli.adapter.orthogonality import OrthogonalityForm, orthogonality
from dcft_cli.adapter_file.load import load_tensors
from dcft_cli.adapter_file.read import ADAPTER_FILE, read_adapter
from dcft_cli.models.loading import head_outputs
from dcft_cli.training.callbacks import ReportingCallback
from dcft_cli.training.diagnosis import LearningCheck
from dcft_cli.training.length_groups import EpochOfGroups, SeededLengthGroups


class EvaluationSet(Protocol):
    """A validation set as the tasks prepare it: features in a fixed order, and their scoring."""

    @property
    def name(self) -> str:
        """Name for reports."""

    @property
    def prefix(self) -> str:
        """What stands before the names of its scores, where there are several sets."""

    @property
    def features(self) -> Dataset:
        """Model inputs, sorted by length."""

    @property
    def score(self) -> Callable[[Any, Any], Mapping[str, float]]:
        """(predictions, labels) in the order of `features` to scores by metric name."""

    @property
    def failure(self) -> Callable[[Any], str]:
        """Predictions to what they show where nothing was learned; empty for all others."""


class AdapterTrainer(Trainer):
    """Trains the adapters and the head of a model, and nothing else.

    Args:
        model: a model with adapters.
        args: the Trainer's own settings.
        train_set: encoded training rows with a `length` column; None only evaluates.
        evaluation_sets: what `evaluate` scores.
        tokenizer: pads the batches.
        orthogonality_weight, orthogonality_form: the term added to the loss in training.
        head: names of the trained parameters outside the encoder.
        head_learning_rate: theirs; None: that of `args`.
        save: writes model and description to an adapter file, for checkpoints.
        group_by_length: batches of similar lengths.
        reporting: tells the user what happens.
        check: is told what predictions show.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        tokenizer: PreTrainedTokenizerBase,
        collator: Callable[[list[Any]], dict[str, Any]],
        train_set: Dataset | None = None,
        evaluation_sets: Sequence[EvaluationSet] = (),
        orthogonality_weight: float = 0.0,
        orthogonality_form: OrthogonalityForm = "mean_norm",
        head: Collection[str] = (),
        head_learning_rate: float | None = None,
        group_by_length: bool = True,
        save: Callable[[Path], object] | None = None,
        reporting: ReportingCallback,
        check: LearningCheck | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.evaluation_sets = evaluation_sets
        self.epochs = EpochOfGroups()
        self.orthogonality_weight = orthogonality_weight
        self.orthogonality_form = orthogonality_form
        self.head = frozenset(head)
        self.head_learning_rate = head_learning_rate
        self.group_by_length = group_by_length
        self.write_adapter = save
        self.reporting = reporting
        self.check = check
        self.trained = model
        self.layers = list(adapter_layers(model).values())
        self.trained_parameters = [p for p in model.parameters() if p.requires_grad]
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=train_set,
            # What is scored is in evaluation_sets; the Trainer only wants to see some data.
            eval_dataset=evaluation_sets[0].features if evaluation_sets else None,
            processing_class=tokenizer,
            callbacks=[reporting, self.epochs, *([check] if check else []), *callbacks],
        )
        self.remove_callback(PrinterCallback)
        if args.dataloader_num_workers:
            # Batches are padded in Python; the tokenizers library would warn of each process.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        # The mean over each batch, divided by the accumulation steps, is what every task's loss
        # and the orthogonality term mean. The Trainer's count of label items is for tokens, and
        # models' regression losses ignore it.
        self.model_accepts_loss_kwargs = False

    def take_up(self, checkpoint: Path) -> None:
        """Takes up the last checkpoint of a finished run: its history, and its best adapter."""
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        best = self.state.best_global_step or self.state.global_step
        self._load_from_checkpoint(str(checkpoint.with_name(f"checkpoint-{best}")))
        if self.check is not None:
            self.check.take_history(self.state)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The model's loss; in training plus the weighted orthogonality term (Eq. 4)."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training and self.orthogonality_weight:
            term = orthogonality(self.layers, self.orthogonality_form)
            loss = loss + self.orthogonality_weight * term
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with a learning rate for the adapters and one for the head."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.trained))
            rate = self.args.learning_rate
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in self.trained.named_parameters():
                if parameter.requires_grad:
                    kind = name in self.head, name not in decayed
                    groups.setdefault(kind, []).append(parameter)
            optimizer, settings = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = optimizer(
                [
                    {
                        "params": groups[kind],
                        "lr": (self.head_learning_rate or rate) if is_head else rate,
                        "weight_decay": 0.0 if is_spared else self.args.weight_decay,
                    }
                    # The adapters first: their learning rate is the one that is logged.
                    for kind in sorted(groups)
                    for is_head, is_spared in [kind]
                ],
                **settings,
            )
        return self.optimizer

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """None: counting them takes a walk through the model at every step, and nobody asks."""
        return 0

    def evaluate(
        self,
        eval_dataset: object = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Scores every evaluation set; names in the result carry the prefix."""
        scores = self.score(metric_key_prefix)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        self.log(dict(metrics))  # the Trainer adds the epoch to what it logs
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def score(self, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Score every evaluation set, by the names of the metrics; nothing is logged.

        Once `train` has prepared the model: what is scored before is not trained in parallel after.
        """
        scores: dict[str, float] = {}
        failures: list[str] = []
        loaders = [self.get_eval_dataloader(held.features) for held in self.evaluation_sets]
        # Under mixed precision W + dW would be rounded, and nn.DataParallel copies the layers.
        args = self.args
        unmerged = args.bf16 or args.fp16 or args.n_gpu > 1
        scored = nullcontext() if unmerged else merged(self.trained)
        with self.reporting.scoring(sum(map(len, loaders))), scored:
            for held, loader in zip(self.evaluation_sets, loaders, strict=True):
                output = self.evaluation_loop(
                    loader,
                    description=held.name,
                    prediction_loss_only=False,
                    metric_key_prefix=metric_key_prefix,
                )
                found = held.score(output.predictions, output.label_ids)
                failures.append(held.failure(output.predictions))
                scores |= {f"{held.prefix}{name}": value for name, value in found.items()}
        if self.check is not None:
            self.check.failure = failures[0] if failures else ""
        return scores

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Any, Tensor | None]:
        """Logits and labels; of all else that a model may answer, scores need nothing."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = [value.detach() for value in head_outputs(model(**inputs))]
        return None, logits[0] if len(logits) == 1 else tuple(logits), inputs.get("labels")

    def _clip_grad_norm(self, model: nn.Module) -> Tensor | float | None:
        # The Trainer walks through all of the model for the few parameters that have a gradient.
        norm: Tensor | float | None = self.accelerator.clip_grad_norm_(
            self.trained_parameters, self.args.max_grad_norm
        )
        return norm

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        if not self.group_by_length or self.train_dataset is None:
            return super()._get_train_sampler(train_dataset)
        self.epochs.groups = SeededLengthGroups(
            self.args.train_batch_size * self.args.gradient_accumulation_steps,
            lengths=self.train_dataset["length"][:],
            seed=self.args.seed,
        )
        return self.epochs.groups

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int] | None:
        # Evaluation features come sorted by length, and are scored in their order.
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def _save(self, output_dir: str | None = None, state_dict: object = None) -> None:
        if self.args.should_save and self.write_adapter is not None:
            self.write_adapter(Path(output_dir or str(self.args.output_dir)) / ADAPTER_FILE)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        load_tensors(self.trained, read_adapter(Path(resume_from_checkpoint) / ADAPTER_FILE))

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))
