"""PEFT's LoRA under the stock Trainer, as scripts have it: what end_to_end.py compares with.

    python benchmarks/peft_lora.py '{"base": FOLDER, "train": FILE, ...}'

takes the fields of `Settings` and prints one JSON object. It imports nothing of dcft_cli.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

# Query, key, value, attention output and both feed-forward layers of BERT, by the ends of their
# names. The pooler's `dense` is none of them.
LAYERS = ("query", "key", "value", "intermediate.dense", "output.dense")


@dataclass(frozen=True)
class Settings:
    """A run. What a recipe's training section names too means the same here.

    Attributes:
        base: folder of a BERT.
        train, validation: jsonl files with a column `label` of class numbers.
        text: the text column, or the two of a pair.
        pad_to_max_length: every row is padded to `max_length` when it is encoded, as run_glue
            does; else each batch to its longest row.
        group_by_length: batches of similar lengths (the Trainer's own, off unless asked for).
    """

    base: str
    train: str
    validation: str
    text: tuple[str, ...]
    labels: int
    max_length: int
    classifier_dropout: float | None
    epochs: float
    batch_size: int
    eval_batch_size: int
    learning_rate: float
    scheduler: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    logging_steps: int
    seed: int
    device: str
    precision: str
    output: str
    pad_to_max_length: bool = False
    group_by_length: bool = False
    rank: int = 1

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Clock(TrainerCallback):
    """Time from the first step to the end of the last one, evaluations left out."""

    def __init__(self) -> None:
        self.began = self.ended = self.evaluating = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step >= state.max_steps:
            if args.device.type == "cuda":
                torch.cuda.synchronize(args.device)
            self.ended = time.perf_counter()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self.ended:
            self.evaluating += kwargs["metrics"]["eval_runtime"]

    @property
    def training_seconds(self) -> float:
        return self.ended - self.began - self.evaluating


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    found = np.asarray(prediction.predictions).argmax(axis=-1)
    return {"accuracy": float((found == prediction.label_ids).mean())}


def training_arguments(settings: Settings) -> TrainingArguments:
    return TrainingArguments(
        output_dir=settings.output,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.eval_batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup_ratio,  # below 1: a share
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=settings.logging_steps,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        train_sampling_strategy="group_by_length" if settings.group_by_length else "random",
        seed=settings.seed,
        use_cpu=settings.device == "cpu",
        bf16=settings.precision == "bfloat16",
        dataloader_pin_memory=torch.cuda.is_available() and settings.device != "cpu",
        report_to="none",
    )


def train(settings: Settings) -> dict[str, Any]:
    """Trains and says what `dcft train` says in its metrics.json, as far as it is compared."""
    set_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(settings.base)

    def encode(rows: dict[str, list[Any]]) -> BatchEncoding:
        encoded: BatchEncoding = tokenizer(
            *(rows[column] for column in settings.text),
            truncation=True,
            max_length=settings.max_length,
            padding="max_length" if settings.pad_to_max_length else False,
        )
        return encoded

    files = {"train": settings.train, "validation": settings.validation}
    data = load_dataset("json", data_files=files)
    data = data.map(encode, batched=True)
    model = AutoModelForSequenceClassification.from_pretrained(
        settings.base,
        num_labels=settings.labels,
        classifier_dropout=settings.classifier_dropout,
        dtype=torch.float32,
    )
    config = LoraConfig(task_type="SEQ_CLS", r=settings.rank, target_modules=list(LAYERS))
    model = get_peft_model(model, config)
    clock = Clock()
    trainer = Trainer(
        model=model,
        args=training_arguments(settings),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        data_collator=default_data_collator
        if settings.pad_to_max_length
        else DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
        callbacks=[clock],
    )
    trainer.train()
    trainer.save_model()
    scores = [log["eval_accuracy"] for log in trainer.state.log_history if "eval_accuracy" in log]
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    adapter = sum(size for name, size in sizes.items() if ".lora_" in name)
    return {
        "adapter_parameters": adapter,
        "head_parameters": sum(sizes.values()) - adapter,
        "training_seconds": clock.training_seconds,
        "main_metric": "accuracy",
        "metrics": {"accuracy": max(scores)},
        "last_metrics": {"accuracy": scores[-1]},
    }


if __name__ == "__main__":
    print(json.dumps(train(Settings.from_json(sys.argv[1]))))
