"""The recipe: every setting of a run, checked. Sections and keys are those of the YAML file.

Nothing here knows torch or transformers: a recipe is checked before either is imported.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TaskName = Literal[
    "cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "squad_v1", "squad_v2"
]
TaskType = Literal[
    "classification", "multi_label", "regression", "token_classification", "question_answering"
]
DType = Literal["float32", "bfloat16"]

_TYPE_OF_TASK: dict[str, TaskType] = {
    "stsb": "regression",
    "squad_v1": "question_answering",
    "squad_v2": "question_answering",
}

Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class ModelSection(_Section):
    """The frozen base model."""

    name: str
    """Hub name, local folder, or `package://PACKAGE/PATH` inside an installed package."""
    revision: str | None = None
    """Hub revision: branch, tag or commit."""
    dtype: DType = "float32"
    """Type the frozen weights are held in; the adapter always trains in float32."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Bits in which the frozen linear layers are held, by bitsandbytes; None: as `dtype` says."""
    classifier_dropout: Fraction | None = None
    """Dropout before the task head; None keeps the base model's own setting."""


class TaskSection(_Section):
    """What is learned: a known task by `name`, or a `type` for the user's own data."""

    name: TaskName | None = None
    """A known task: its columns, labels and metrics are filled in."""
    type: TaskType | None = None
    """Family of a task on the user's own data."""
    labels: list[str] | None = Field(default=None, min_length=2)
    """Class names in the order of their numbers; None finds them in the training data."""
    metric: str | None = None
    """Metric that picks the best checkpoint; None takes the task's own."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Multi-label: probability from which on a label is given."""
    unanswerable: bool = False
    """Question answering: questions may have no answer (as in SQuAD v2.0)."""
    null_threshold: float = 0.0
    """Question answering: "no answer" wins when its score leads by more than this."""
    n_best: int = Field(default=20, ge=1)
    """Question answering: start and end candidates looked at per window."""
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
        """The task's family, whether it was named or typed."""
        if self.name is not None:
            return _TYPE_OF_TASK.get(self.name, "classification")
        assert self.type is not None
        return self.type


class HoldoutSection(_Section):
    """A validation set cut from the training data where there is none of its own."""

    fraction: float = Field(gt=0, lt=1)
    """Share of the groups that is held out."""
    group_prefix: int | None = Field(default=None, ge=1)
    """Rows whose first text starts with the same characters (this many) stay on one side."""
    seed: int = 0
    """Another seed holds out other groups."""


class DataSection(_Section):
    """Where rows come from: a Hub data set, or local files."""

    hub: str | None = None
    """Name of a data set on the Hub."""
    config: str | None = None
    """The Hub data set's configuration (subset)."""
    revision: str | None = None
    train: str | None = None
    """Hub: name of the split. Else: path or `package://` address of a file."""
    validation: str | dict[str, str] | None = None
    """As `train`; a mapping names several sets, each scored by itself."""
    holdout: HoldoutSection | None = None
    format: Literal["jsonl", "csv", "tsv", "parquet", "conll"] | None = None
    """Format of local files; None reads it off the file's ending."""
    columns: list[str] | None = Field(default=None, min_length=1)
    """Column names of a csv or tsv file that has no header line, or of a conll file."""
    quoting: bool = True
    """Whether quotation marks in csv and tsv files enclose fields."""
    text: list[str] | None = Field(default=None, min_length=1, max_length=2)
    """One text column or two (a pair; for question answering: question, context; for token
    classification: the one of words)."""
    label: str | Annotated[list[str], Field(min_length=2)] | None = None
    """Label column (question answering: the answers column). Multi-label: one that lists the
    labels, or several of 0 and 1, each of the label of its name."""
    separator: str = Field(default="|", min_length=1)
    """Multi-label: what parts labels that are written as one text."""
    max_length: int = Field(default=384, ge=4)
    """Longest input, in tokens; longer ones are cut (contexts of questions and sentences of
    words: windowed). Costs nothing where inputs are short: batches are padded to their own
    longest."""
    document_stride: int = Field(default=128, ge=1)
    """Tokens shared by neighbouring windows of one context, or of one sentence of words."""

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
    """The kind of adapter."""
    kernel_size: int = Field(default=8, ge=1)
    """d, edge of the deconvolution kernel; larger kernels make smaller adapters."""
    stride: int | None = Field(default=None, ge=1)
    """Step of the transposed convolution, 1 to kernel_size; None: kernel_size."""
    rank: int = Field(default=1, ge=1)
    """k, rank of the subspace matrix B A."""
    scale: float = Field(default=4.0, gt=0)
    """Constant factor of dW (the public implementation's alpha / r)."""
    targets: list[str] = Field(default=["Q", "K", "V", "O", "FFN"], min_length=1)
    """Roles (Q, K, V, O, FFN, FFN_IN, FFN_OUT; CROSS, CROSS_Q, ... for cross-attention) or
    patterns of layer names."""
    init: Literal["gradient", "zero", "normal"] = "gradient"
    """gradient: A and B from the first gradient of the frozen weights, C = 0, so dW = 0. zero:
    random orthonormal A and B, C = 0. normal: A, B, C from N(0, 0.02^2), as the paper."""
    orthogonality: float = Field(default=0.0, ge=0)
    """Weight of the orthogonality term in the loss (the reference's gamma)."""
    orthogonality_form: Literal["mean_norm", "squared"] = "mean_norm"
    """mean_norm: mean of ||Gram - I|| over all A and B. squared: Eq. 4, summed."""

    @model_validator(mode="after")
    def _stride_within_kernel(self) -> Self:
        if self.stride is not None and self.stride > self.kernel_size:
            raise ValueError(
                f"`stride: {self.stride}` is larger than `kernel_size: {self.kernel_size}`; "
                "cells between the windows would never be trained"
            )
        return self


class TrainingSection(_Section):
    """The training loop."""

    learning_rate: float = Field(default=5e-3, gt=0)
    """Highest learning rate of AdamW."""
    head_learning_rate: float | None = Field(default=None, gt=0)
    """Highest learning rate for all that is trained outside the encoder; None: `learning_rate`."""
    fit_head: Literal["auto", "off"] = "auto"
    """auto: the head's last linear layer is fitted to the frozen encoder's outputs before
    training."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training data; None: 3, or as many as make 150 optimizer steps."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after so many optimizer steps, whatever `epochs` says."""
    batch_size: int = Field(default=32, ge=1)
    """Rows that one device takes at once in training."""
    eval_batch_size: int | None = Field(default=None, ge=1)
    """None: twice `batch_size`."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches of one optimizer step."""
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """Course of the learning rate after the warm-up."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps over which the learning rate rises from 0."""
    warmup_ratio: Fraction | None = None
    """Warm-up as a share of all steps; instead of `warmup_steps`. Neither: 0.1."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decay, of all trained values but biases."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    seed: int = Field(default=42, ge=0)
    """Of initial values, order of the data and dropout."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """auto: CUDA, else Apple's GPU, else the CPU."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Mixed precision of the computation; auto: bfloat16 on CUDA devices that have it."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Score the validation data every so many steps; None: once an epoch, at most ten times."""
    logging_steps: int = Field(default=10, ge=1)
    """Measure the loss every so many steps."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Stop after so many evaluations without a better score."""
    group_by_length: bool = True
    """Batches of similar lengths, so that little is padded."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    acceleration: Literal["auto", "off"] = "auto"
    """auto: compute the same numbers, up to rounding, in less time and memory where this device
    allows it; off: the plain layers. With `compile`, torch's compiler does the work."""
    compile: bool = False
    """Have torch.compile make a program of the model: minutes at first, then faster steps."""
    num_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes that load batches beside the training; auto: two for a CUDA device, else none."""
    report_to: list[str] = []
    """Experiment trackers, by the names that transformers gives them."""
    output: str | None = None
    """Run folder; None: runs/ and the recipe's name."""

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("give `warmup_steps` or `warmup_ratio`, not both")
        return self


class Recipe(_Section):
    """A whole run: base model, task, data, adapter and training settings."""

    model: ModelSection
    task: TaskSection
    data: DataSection = DataSection()
    adapter: AdapterSection = AdapterSection()
    training: TrainingSection = TrainingSection()
