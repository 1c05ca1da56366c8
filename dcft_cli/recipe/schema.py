"""The schema of recipes: sections and keys of the YAML file, their types and defaults.

The docstring of a key is its description in `dcft train --help-settings`, in the JSON Schema and
thus in editors; docs/recipes.md says more. Imports neither torch nor transformers, so that
mistakes show before these are loaded.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from dcft_cli.recipe.adapter import AdapterSection
from dcft_cli.recipe.methods import with_method_defaults
from dcft_cli.recipe.ranges import parse_range
from dcft_cli.recipe.section import DType, Fraction, Section

TaskName = Literal[
    "cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "squad_v1", "squad_v2"
]
TaskType = Literal[
    "classification", "multi_label", "regression", "token_classification", "question_answering"
]

_TASK_TYPES: dict[str, TaskType] = {
    "stsb": "regression",
    "squad_v1": "question_answering",
    "squad_v2": "question_answering",
}

FILE_FORMATS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".conllu": "conllu",
    **dict.fromkeys((".conll", ".iob", ".iob2", ".bio"), "conll"),
}
"""Of data files, by their endings."""

HOW_STARTED = frozenset({"output", "device", "num_workers", "report_to"})
"""Settings of `training` that say how a run was started, not what was trained."""

_OneOrTwo = Annotated[list[str], Field(min_length=1, max_length=2)]
TextColumns = Annotated[
    _OneOrTwo,
    BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value,
        json_schema_input_type=str | _OneOrTwo,
    ),
]
"""One column needs no brackets."""


def _delimiter(value: str) -> str:
    value = "\t" if value == r"\t" else value  # as shells pass it
    if len(value) != 1 or value in '"\r\n':
        raise ValueError("must be one character, other than a quotation mark or a line break")
    return value


def _range(value: str) -> str:
    parse_range(value)
    return value


class ModelSection(Section):
    """The frozen base model."""

    name: str
    """Hub name, local folder, or `package://PACKAGE/PATH` inside an installed package."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    dtype: DType = "float32"
    """Type of the frozen weights; adapter and head always train in float32."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Quantization of the frozen linear layers, by bitsandbytes."""
    trust_remote_code: bool = False
    """Run the code that the base model brings; takes the option `--trust-remote-code` too."""
    classifier_dropout: Fraction | None = None
    """Dropout before the task head. Unset: the base model's own."""


class TaskSection(Section):
    """The task: a known one by `name`, or a `type` for your own data."""

    name: TaskName | None = None
    """A known task, which sets type, columns, labels and metrics."""
    type: TaskType | None = None
    """Type of a task on your own data."""
    labels: list[str] | None = Field(default=None, min_length=2)
    """Class names in the order of their numbers. Unset: the known task's, the data set's own, else
    those found in the training data."""
    metric: str | None = None
    """Score that picks the best checkpoint. Unset: the task's first one."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["best", "best_per_label"] = 0.5
    """Multi-label: probability from which a label is predicted. best: the one with the best micro
    F1 on the validation rows, kept with the adapter; best_per_label: one for each label."""
    calibrate: bool = False
    """Fit a temperature on the validation rows, by which logits are divided."""
    unanswerable: bool = False
    """Question answering: questions may have no answer."""
    null_threshold: float | Literal["best"] = 0.0
    """Question answering: "no answer" is predicted when it scores higher by more than this. best:
    the one with the best F1 on the validation rows, kept with the adapter."""
    n_best: int = Field(default=20, ge=1)
    """Question answering: number of start and end candidates per window."""
    max_answer_length: int = Field(default=30, ge=1)
    """Question answering: longest answer, in tokens."""

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


class HoldoutSection(Section):
    """A validation set split off the training data."""

    fraction: float = Field(gt=0, lt=1)
    """Share of the training rows that is held out for validation."""
    group_prefix: int | None = Field(default=None, ge=1)
    """Rows whose first text starts with the same characters (this many) stay together. Unset: rows
    with the same text."""
    seed: int = 0
    """Seed of the split."""


class DataSection(Section):
    """The data: a Hub data set or local files."""

    hub: str | None = None
    """Data set on the Hub, such as nyu-mll/glue."""
    config: str | None = None
    """Configuration of the Hub data set, such as rte."""
    revision: str | None = None
    """Branch, tag or commit of the Hub data set."""
    train: str | None = None
    """Training rows: a file, or with `hub` the name of a split."""
    validation: str | dict[str, str] | None = None
    """Rows to score: a file or split; a mapping names several sets, each scored separately."""
    holdout: HoldoutSection | None = None
    """Splits the validation rows off the training rows, instead of `validation`."""
    format: Literal["jsonl", "csv", "tsv", "parquet", "conll", "conllu"] | None = None
    """Format of local files. Unset: by the file's suffix."""
    columns: list[str] | None = Field(default=None, min_length=1)
    """Column names of a csv or tsv file without a header, or of a conll file."""
    delimiter: Annotated[str, AfterValidator(_delimiter)] | None = None
    """Between the columns of a csv or tsv file. Unset: a comma or a tab."""
    quoting: bool | None = None
    """Whether quotation marks enclose fields of csv and tsv files. Unset: yes, except in tsv
    lines that have the right number of fields without them."""
    text: TextColumns | None = None
    """The text column, or the two of a pair (question answering: question and context; token
    classification: the column of words)."""
    label: str | Annotated[list[str], Field(min_length=2)] | None = None
    """The label column (question answering: the answers). Multi-label: a column of lists, or
    several columns of 0 and 1, each named after its label."""
    separator: str = Field(default="|", min_length=1)
    """Multi-label: separator between labels stored in one column."""
    max_length: int = Field(default=384, ge=4)
    """Longest input, in tokens; longer ones are truncated, or split into windows."""
    document_stride: int = Field(default=128, ge=1)
    """Question answering and token classification: tokens shared by neighboring windows."""

    @model_validator(mode="after")
    def _one_validation_source(self) -> Self:
        if self.validation is not None and self.holdout is not None:
            raise ValueError("give `validation` or `holdout`, not both")
        return self

    def is_file(self, address: str) -> bool:
        """Return whether an address of `train` or `validation` is a file, not a split of `hub`."""
        return self.hub is None or is_file_address(address)


class HeadSection(Section):
    """The task head: the parameters outside the encoder."""

    reuse: Literal["auto", "keep", "replace"] = "auto"
    """What becomes of the last layer of a task head that the base model has. auto: continue it if
    its classes are those of the task, else replace it."""
    dense: Literal["adapter", "frozen", "full"] = "adapter"
    """What to do with the square linear layers before the last one: train them, or set them to
    the identity, with adapters or without. Methods that adapt no single layers train them."""


class TrainingSection(Section):
    """The training loop."""

    class_weights: dict[str, Annotated[float, Field(gt=0)]] | Literal["balanced"] | None = None
    """Weights of classes in the loss, 1 for those not named. balanced: all classes count equally.
    Multi-label: the weight of the rows that have the label."""
    learning_rate: float = Field(default=5e-3, gt=0)
    """Peak learning rate, after the warm-up. Unset: the method's, see docs/methods.md."""
    head_learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of the parameters outside the encoder. Unset: `learning_rate`, or the
    method's own if that is unset too."""
    fit_head: Literal["auto", "off"] = "auto"
    """auto: fit the head's last linear layer to the frozen encoder's outputs before training. off:
    start it at random."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training data. Unset: 3, or as many as make 150 optimizer steps."""
    max_steps: int | None = Field(default=None, ge=1)
    """Number of optimizer steps; overrides `epochs`."""
    batch_size: int = Field(default=32, ge=1)
    """Rows per device and batch in training."""
    eval_batch_size: int | None = Field(default=None, ge=1)
    """Rows per device and batch in evaluations. Unset: twice `batch_size`."""
    auto_batch_size: bool = False
    """If memory runs out, halve `batch_size` and double `gradient_accumulation_steps`."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches per optimizer step."""
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """Learning rate schedule after the warm-up; `constant` has no warm-up."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps over which the learning rate rises."""
    warmup_ratio: Fraction | None = None
    """Warm-up as a share of all steps, instead of `warmup_steps`. Neither: 0.1."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of AdamW; biases are exempt."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Norm to which gradients are clipped."""
    seed: int = Field(default=42, ge=0, le=2**32 - 1)  # NumPy takes no larger one
    """Seed of initial values, data order and dropout."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """auto: CUDA, else Apple's GPU, else the CPU."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Mixed precision of the computation. auto: bfloat16 on CUDA devices that support it."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Steps between evaluations. Unset: an epoch, with at most ten evaluations."""
    logging_steps: int = Field(default=10, ge=1)
    """Steps between reports of the loss, which is also reported before each evaluation."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after this many evaluations without a better score."""
    group_by_length: bool = True
    """Batch rows of similar length, which reduces padding."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, which saves memory and takes time."""
    acceleration: Literal["auto", "off"] = "auto"
    """auto: the same numbers, up to rounding, in less time and memory. off: plain layers."""
    shard_base: bool = False
    """Split the frozen base model among the processes (FSDP2), for one too large for a device."""
    compile: bool = False
    """Compile the model with torch.compile."""
    num_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes that load batches. auto: two for a CUDA device, else none."""
    report_to: list[str] = Field(default=[])
    """Experiment trackers by their names in transformers, such as tensorboard or wandb."""
    output: str | None = None
    """Run folder. Unset: runs/NAME."""

    @property
    def evaluation_batch_size(self) -> int:
        """Rows that a device takes at once in an evaluation."""
        return self.eval_batch_size or 2 * self.batch_size

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give `warmup_steps` or `warmup_ratio`, not both")
        return self


class SweepSection(Section):
    """Runs that `dcft sweep` derives from this recipe.

    All other commands ignore the section: `dcft train` trains the recipe itself. A value that is a
    mapping replaces the whole section of its key.
    """

    variants: dict[str, dict[str, Any]] = Field(default={})
    """Settings that belong together, by dotted key, under a name: a run with each."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default={})
    """Values of a setting, by dotted key: a run with each combination."""
    tune: dict[str, Annotated[str, AfterValidator(_range)]] = Field(default={})
    """LOW..HIGH by dotted key: the best number in this range is searched for."""
    trials: int | None = Field(default=None, ge=1)
    """Runs of each search; needed with `tune`."""
    seeds: int = Field(default=1, ge=1)
    """Runs of each combination; `training.seed` counts up from the recipe's."""


class Recipe(Section):
    """A run: base model, task, data, adapter and training settings."""

    model: ModelSection
    task: TaskSection
    data: DataSection = DataSection()
    adapter: AdapterSection = AdapterSection()
    head: HeadSection = HeadSection()
    training: TrainingSection = TrainingSection()
    sweep: SweepSection | None = None

    @model_validator(mode="before")
    @classmethod
    def _method_defaults(cls, values: Any) -> Any:
        return with_method_defaults(values)


def sections(
    section: type[BaseModel] = Recipe, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Yield the path and the class of a section, and of all sections in it."""
    yield path, section
    for name, field in section.model_fields.items():
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from sections(inner, (*path, name))


def is_file_address(value: str) -> bool:
    """Return whether `data.train` or `data.validation` names a file rather than a Hub split.

    A file has a path separator (`package://` addresses do) or the suffix of a data format; other
    files need their folder (`./words.txt`). `data.hub`, `data.config` and `data.revision` do not
    apply to files, so a recipe for a Hub data set trains on local files with these two overrides.
    """
    return "/" in value or "\\" in value or PurePosixPath(value).suffix.lower() in FILE_FORMATS
