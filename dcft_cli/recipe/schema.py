"""The schema of recipes: sections and keys of the YAML file, their types and defaults.

docs/recipes.md says what each key means; here are notes on those that the name does not explain.
Imports neither torch nor transformers, so that mistakes show before these are loaded.
"""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TaskName = Literal[
    "cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "squad_v1", "squad_v2"
]
TaskType = Literal[
    "classification", "multi_label", "regression", "token_classification", "question_answering"
]
DType = Literal["float32", "bfloat16"]

_TASK_TYPES: dict[str, TaskType] = {
    "stsb": "regression",
    "squad_v1": "question_answering",
    "squad_v2": "question_answering",
}

_FILE_SUFFIXES = frozenset(
    {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".conll", ".iob", ".iob2", ".bio"}
)

Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelSection(_Section):
    """The frozen base model."""

    name: str
    """Hub name, local folder, or `package://PACKAGE/PATH` inside an installed package."""
    revision: str | None = None
    dtype: DType = "float32"
    quantization: Literal["4bit", "8bit"] | None = None
    """Quantization of the frozen linear layers, by bitsandbytes; None: none."""
    classifier_dropout: Fraction | None = None


class TaskSection(_Section):
    """The task: a known one by `name`, or a `type` for your own data."""

    name: TaskName | None = None
    """A known task, which sets type, columns, labels and metrics."""
    type: TaskType | None = None
    """Type of a task on your own data."""
    labels: list[str] | None = Field(default=None, min_length=2)
    """Class names in the order of their numbers; None: those found in the training data."""
    metric: str | None = None
    threshold: float = Field(default=0.5, gt=0, lt=1)
    unanswerable: bool = False
    null_threshold: float = 0.0
    """Question answering: "no answer" is predicted when it scores higher by more than this."""
    n_best: int = Field(default=20, ge=1)
    max_answer_length: int = Field(default=30, ge=1)

    @model_validator(mode="after")
    def _name_or_type(self) -> Self:
        if self.name is None and self.type is None:
            raise ValueError("give either `name` (a known task) or `type`")
        if self.name is not None and self.type not in (None, self.kind):
            raise ValueError(f"`type: {self.type}` does not fit `name: {self.name}` ({self.kind})")
        return self

    @property
    def kind(self) -> TaskType:
        """The task's type, of a known task too."""
        if self.name is not None:
            return _TASK_TYPES.get(self.name, "classification")
        assert self.type is not None
        return self.type


class HoldoutSection(_Section):
    """A validation set split off the training data."""

    fraction: float = Field(gt=0, lt=1)
    """Share of the groups that are held out."""
    group_prefix: int | None = Field(default=None, ge=1)
    """Rows whose first text starts with the same characters (this many) stay together."""
    seed: int = 0


class DataSection(_Section):
    """The data: a Hub data set or local files."""

    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    train: str | None = None
    validation: str | dict[str, str] | None = None
    """As `train`; a mapping names several sets, each scored separately."""
    holdout: HoldoutSection | None = None
    format: Literal["jsonl", "csv", "tsv", "parquet", "conll"] | None = None
    columns: list[str] | None = Field(default=None, min_length=1)
    quoting: bool = True
    text: list[str] | None = Field(default=None, min_length=1, max_length=2)
    """One text column, or two for pairs (question answering: question and context; token
    classification: the column of words)."""
    label: str | Annotated[list[str], Field(min_length=2)] | None = None
    """Label column (question answering: the answers). Multi-label: a column of lists, or several
    columns of 0 and 1, each named after its label."""
    separator: str = Field(default="|", min_length=1)
    max_length: int = Field(default=384, ge=4)
    document_stride: int = Field(default=128, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _one_text_column(cls, values: object) -> object:
        if isinstance(values, dict) and isinstance(values.get("text"), str):
            return {**values, "text": [values["text"]]}
        return values

    @model_validator(mode="after")
    def _one_validation_source(self) -> Self:
        if self.validation is not None and self.holdout is not None:
            raise ValueError("give `validation` or `holdout`, not both")
        return self


class AdapterSection(_Section):
    """The DCFT adapter (arXiv 2503.01419, section 3)."""

    method: Literal["dcft"] = "dcft"
    kernel_size: int = Field(default=8, ge=1)
    """d, size of the deconvolution kernel; larger kernels make smaller adapters."""
    stride: int | None = Field(default=None, ge=1)
    """Step of the transposed convolution, 1 to kernel_size; None: kernel_size."""
    rank: int = Field(default=1, ge=1)
    """k, rank of the subspace matrix B A."""
    scale: float = Field(default=4.0, gt=0)
    """Constant factor of dW (the public implementation's alpha / r)."""
    targets: list[str] = Field(default=["Q", "K", "V", "O", "FFN"], min_length=1)
    init: Literal["gradient", "zero", "normal"] = "gradient"
    """gradient: A and B from the first gradient of the frozen weights, C = 0, so dW = 0. zero:
    random orthonormal A and B, C = 0. normal: A, B, C from N(0, 0.02^2), as the paper."""
    orthogonality: float = Field(default=0.0, ge=0)
    """Weight of the orthogonality term in the loss (the reference's gamma)."""
    orthogonality_form: Literal["mean_norm", "squared"] = "mean_norm"
    """mean_norm: mean of ||Gram - I|| over all A and B. squared: Eq. 4, summed."""
    file_dtype: DType = "float32"
    """Type of the values in adapter.safetensors; checkpoints are float32."""

    @model_validator(mode="after")
    def _stride_within_kernel(self) -> Self:
        if self.stride is not None and self.stride > self.kernel_size:
            raise ValueError(
                f"`stride: {self.stride}` is larger than `kernel_size: {self.kernel_size}`; "
                "entries between the windows would never be trained"
            )
        return self


class HeadSection(_Section):
    """The task head: the parameters outside the encoder."""

    dense: Literal["full", "adapter", "frozen"] = "full"
    """What to do with the square linear layers before the last one: train them, or set them to
    the identity, with adapters or without."""


class TrainingSection(_Section):
    """The training loop."""

    learning_rate: float = Field(default=5e-3, gt=0)
    head_learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of the parameters outside the encoder; None: `learning_rate`."""
    fit_head: Literal["auto", "off"] = "auto"
    """auto: fit the head's last linear layer to the frozen encoder's outputs before training."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training data; None: 3, or as many as make 150 optimizer steps."""
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1)
    eval_batch_size: int | None = Field(default=None, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_ratio: Fraction | None = None
    """Warm-up as a share of all steps; instead of `warmup_steps`. Neither: 0.1."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    seed: int = Field(default=42, ge=0)
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Mixed precision of the computation; auto: bfloat16 on CUDA devices that support it."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Steps between evaluations; None: an epoch, with at most ten evaluations."""
    logging_steps: int = Field(default=10, ge=1)
    early_stopping_patience: int | None = Field(default=None, ge=1)
    group_by_length: bool = True
    gradient_checkpointing: bool = False
    acceleration: Literal["auto", "off"] = "auto"
    compile: bool = False
    num_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes that load batches; auto: two for a CUDA device, else none."""
    report_to: list[str] = []
    output: str | None = None

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give `warmup_steps` or `warmup_ratio`, not both")
        return self


class Recipe(_Section):
    """A run: base model, task, data, adapter and training settings."""

    model: ModelSection
    task: TaskSection
    data: DataSection = DataSection()
    adapter: AdapterSection = AdapterSection()
    head: HeadSection = HeadSection()
    training: TrainingSection = TrainingSection()


def is_file_address(value: str) -> bool:
    """Return whether `data.train` or `data.validation` names a file rather than a Hub split.

    A file has a path separator (`package://` addresses do) or the suffix of a data format; other
    files need their folder (`./words.txt`). `data.hub`, `data.config` and `data.revision` do not
    apply to files, so a recipe for a Hub data set trains on local files with these two overrides.
    """
    return "/" in value or "\\" in value or PurePosixPath(value).suffix.lower() in _FILE_SUFFIXES
