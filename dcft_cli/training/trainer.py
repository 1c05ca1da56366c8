"""transformers' Trainer with a method's own steps, adapter-only checkpoints and task scores."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler, SequentialSampler
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from dcft_cli.adapter.merge import merged
from dcft_cli.adapter_file.read import ADAPTER_FILE, read_contents
from dcft_cli.data.evaluation_set import EvaluationSet
from dcft_cli.methods.method import Method
from dcft_cli.models.loading import head_outputs
from dcft_cli.recipe import Recipe
from dcft_cli.targets.gradients import Loss
from dcft_cli.training.callbacks import MethodSteps, ReportingCallback
from dcft_cli.training.checkpoints import TRAINER_STATE, checkpoint_path
from dcft_cli.training.diagnosis import CONSTANT, first_impression
from dcft_cli.training.distributed import exchange_trained_only, reshard
from dcft_cli.training.global_batch import pop_weight, remove_repeated_rows, weight_losses, weighted
from dcft_cli.training.length_groups import SeededLengthGroups, SetSamplerEpoch
from dcft_cli.training.resumable import ResumableTrainer

METHOD_STATE = "method.safetensors"
"""File in a checkpoint with what a method needs to resume, if it needs anything."""


class AdapterTrainer(ResumableTrainer):
    """Train the method and the head of a model.

    Args:
        method: attached to the model.
        recipe: for the settings that the Trainer does not have.
        train_set: encoded training rows with a `length` column; None to evaluate only.
        evaluation_sets: the sets that `evaluate` scores.
        save: the method's `save`, with what it says of base and data; writes the checkpoints.
        loss: of outputs and inputs, in training; None: the model's own.
        identity: see `ResumableTrainer`.

    Attributes:
        adapted_model: the model, never wrapped for parallel training.
        baselines: scores reached without training, by name; see `add_baseline`.
        failure: what is wrong with the last predictions, if anything; see `EvaluationSet`.
        reports: where the last predictions fail, by title of the set; see `EvaluationSet`.
        scored_step: optimizer step after which the last predictions were made.
    """

    def __init__(
        self,
        method: Method,
        args: TrainingArguments,
        recipe: Recipe,
        *,
        tokenizer: PreTrainedTokenizerBase,
        collator: Callable[[list[Any]], dict[str, Any]],
        train_set: Dataset | None = None,
        evaluation_sets: Sequence[EvaluationSet] = (),
        save: Callable[..., object] = lambda path: None,
        loss: Loss | None = None,
        identity: Mapping[str, Any] | None = None,
        reporting: ReportingCallback,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.recipe = recipe
        self.evaluation_sets = evaluation_sets
        self.train_rows = 0 if train_set is None else len(train_set)
        self.sampler_epoch = SetSamplerEpoch()
        self.method = method
        self.save_adapter = save
        self.reporting = reporting
        self.loss = loss
        self.failure = ""
        self.reports: dict[str, dict[str, Any]] = {}
        self.scored_step: int | None = None
        self.adapted_model = method.model
        self.baselines: dict[str, Mapping[str, float]] = {}
        super().__init__(
            model=method.model,
            args=args,
            data_collator=collator,
            train_dataset=train_set,
            # `evaluate` scores evaluation_sets; the Trainer only requires that there is a set.
            eval_dataset=evaluation_sets[0].features if evaluation_sets else None,
            processing_class=tokenizer,
            callbacks=[reporting, self.sampler_epoch, MethodSteps(method), *callbacks],
            identity=identity or {},
        )
        self.remove_callback(PrinterCallback)
        # All losses are means over a batch, weighted by `compute_loss` and divided by the Trainer
        # by the accumulation steps. It would pass a count of label tokens to the model instead,
        # which regression losses ignore.
        self.model_accepts_loss_kwargs = False

    def add_baseline(self, name: str, scores: Mapping[str, float], *, write: bool) -> None:
        """Record and report scores reached without training; with `write`, log them too."""
        self.baselines[name] = scores
        if self.reporting.metric in scores:
            self.reporting.baseline(name, scores, write=write)

    def restore_finished_run(self, checkpoint: Path) -> None:
        """Restore history and best adapter of a finished run from its last checkpoint.

        A run that ends where it was stopped has not scored its last step yet.
        """
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
        self.state.max_steps = self.args.max_steps
        self.restore_seconds(checkpoint)
        step, name = self.state.global_step, f"eval_{self.reporting.metric}"
        if any(record["step"] == step and name in record for record in self.state.log_history):
            self.score()  # notes on the run are about its last predictions
        elif self.evaluation_sets:
            self._determine_best_metric(self.evaluate(), trial=None)
        best = self.state.best_global_step or self.state.global_step
        self._load_from_checkpoint(str(checkpoint_path(checkpoint.parent, best)))

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the loss; in training weighted, plus the method's own term."""
        weight = pop_weight(inputs)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if self.loss is not None:
            loss = self.loss(outputs, inputs)
        if weight is not None:
            loss = weighted(loss, weight)
        if model.training and (term := self.method.penalty()) is not None:
            loss = loss + term
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], None]:
        """Return the batches that this process accumulates for a step, with their losses' weights.

        Together with those of the other processes they have every row of the step once.
        """
        batches, _ = super().get_batch_samples(*args, **kwargs)
        processes, counts = self.args.world_size, True
        if batches and processes > 1 and self.accelerator.gradient_state.end_of_dataloader:
            counts = remove_repeated_rows(
                batches[-1], self.train_rows, self.args.process_index, processes
            )
        if batches:
            weight_losses(batches, self.accelerator.reduce, processes, last_counts=counts)
        return batches, None

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create AdamW with a learning rate for the adapters and one for the head.

        What decays is said by the method for its own parameters, and by transformers, which goes
        by names, for those of the base.
        """
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.adapted_model))
            base = {id(parameter) for parameter in self.method.base.values()}
            rates = {False: self.args.learning_rate}
            head = {id(parameter) for parameter in self.method.head().values()}
            rates[True] = self.recipe.training.head_learning_rate or self.args.learning_rate
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in self.adapted_model.named_parameters():
                if parameter.requires_grad:
                    in_base = id(parameter) in base
                    decays = name in decayed if in_base else self.method.decays(name)
                    key = id(parameter) in head, not decays
                    groups.setdefault(key, []).append(parameter)
            optimizer, settings = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = optimizer(
                [
                    {
                        "params": groups[in_head, exempt],
                        "lr": rates[in_head],
                        "weight_decay": 0.0 if exempt else self.args.weight_decay,
                    }
                    # The adapters first: the Trainer logs the first group's learning rate.
                    for in_head, exempt in sorted(groups)
                ],
                **settings,
            )
        return self.optimizer

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: counting would walk through the whole model at every step."""
        return 0

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score every evaluation set, and log the scores; their names have the prefix `eval_`."""
        scores = self.score()
        metrics = {f"eval_{name}": value for name, value in scores.items()}
        is_due = self._is_first_impression(metrics)
        self.log(dict(metrics))  # the Trainer adds the epoch to what it logs
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        if is_due:  # after the scores that it is about
            self._note_first_impression(scores[self.reporting.metric])
        return metrics

    def _is_first_impression(self, metrics: Mapping[str, float]) -> bool:
        """Return whether these scores are the first ones that say something about the run.

        At the end of warm-up and in the first tenth of the steps, hardly anything is learned yet.
        After the last step, the notes on the finished run say more.
        """
        step, last = self.state.global_step, self.state.max_steps
        early = max(self.args.get_warmup_steps(last), last / 10)
        earlier = (record for record in self.state.log_history if metrics.keys() & record)
        return early < step < last and all(record["step"] <= early for record in earlier)

    def _note_first_impression(self, score: float) -> None:
        metric = self.reporting.metric
        constant = self.baselines.get(CONSTANT, {}).get(metric)
        note = first_impression(
            score,
            None if self.recipe.training.class_weights else constant,
            metric=metric,
            greater_is_better=self.reporting.sign > 0,
            failure=self.failure,
        )
        if note:
            self.reporting.reporter.noted(note)

    def score(self) -> dict[str, float]:
        """Score every evaluation set without logging; return scores by metric name.

        In training, what the recipe asks to choose on validation rows, such as a threshold, is
        chosen on the first set.

        In distributed training, only after `train` has wrapped the model: the Trainer would not
        wrap it again.
        """
        scores: dict[str, float] = {}
        failures: list[str] = []
        loaders = [self.get_eval_dataloader(eval_set.features) for eval_set in self.evaluation_sets]
        # Mixed precision would round W + dW, and nn.DataParallel copies the layers.
        unmerged = self.args.bf16 or self.args.fp16 or self.args.n_gpu > 1
        weights = nullcontext() if unmerged else merged(self.adapted_model)
        with self.reporting.scoring(sum(map(len, loaders))), weights:
            for eval_set, loader in zip(self.evaluation_sets, loaders, strict=True):
                output = self.evaluation_loop(
                    loader, description=eval_set.name, prediction_loss_only=False
                )
                output = output._replace(
                    predictions=eval_set.same_for_equal_inputs(output.predictions)
                )
                if self.train_dataset is not None and eval_set is self.evaluation_sets[0]:
                    eval_set.choose(output.predictions)
                found = eval_set.score(output.predictions, output.label_ids)
                if (report := eval_set.report(output.predictions)) is not None:
                    self.reports[eval_set.title] = report
                failures.append(eval_set.failure(output.predictions))
                eval_set.add_to(scores, found)
        reshard(self.adapted_model)  # the weights that a file leaves out are the shards
        self.failure = failures[0] if failures else ""
        self.scored_step = self.state.global_step
        return scores

    def prediction_step(
        self, model: Any, inputs: Any, *args: Any, **kwargs: Any
    ) -> tuple[None, Any, Tensor | None]:
        """Return logits and labels; models may output more, which scores do not need."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = [value.detach() for value in head_outputs(model(**inputs))]
        return None, logits[0] if len(logits) == 1 else tuple(logits), inputs.get("labels")

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        distributed = training and self.args.world_size > 1 and model is self.adapted_model
        if distributed:
            exchange_trained_only(model)
        if not (distributed and self.recipe.training.shard_base):
            return super()._wrap_model(model, training, dataloader)
        # accelerate refuses DDP for a model with shards, even if DDP leaves them out.
        prepared = self.accelerator.prepare_model(model, evaluation_mode=True)
        unused = self.args.ddp_find_unused_parameters
        return DistributedDataParallel(prepared, find_unused_parameters=bool(unused))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        if not self.recipe.training.group_by_length or self.train_dataset is None:
            return super()._get_train_sampler(train_dataset)
        self.sampler_epoch.sampler = SeededLengthGroups(
            # Of all processes: however many share a step, its rows are the same.
            self.get_total_train_batch_size(self.args),
            lengths=self.train_dataset["length"][:],
            seed=self.args.seed,
        )
        return self.sampler_epoch.sampler

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int] | None:
        # Evaluation features are sorted by length already.
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def write_weights(self, folder: Path) -> None:
        """Write the adapter file of this moment, and what else the method needs to resume."""
        self.save_adapter(folder / ADAPTER_FILE)
        if state := self.method.state():
            save_file(state, folder / METHOD_STATE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        self.method.load(read_contents(folder / ADAPTER_FILE))
        if (state := folder / METHOD_STATE).exists():
            self.method.load_state(load_file(state))

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))
