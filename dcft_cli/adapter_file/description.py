"""The schema of an adapter file's description: every key and type is checked before it is used."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import from_json

from dcft_cli.adapter.config import DCFTConfig, Init
from dcft_cli.adapter_file.spec import Module

# Larger numbers are no sizes, and would overflow those computed from them.
_Size = Annotated[int, Field(ge=1, lt=2**31)]
_Shape = tuple[Annotated[int, Field(ge=0, lt=2**31)], ...]
_Crc32 = Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
_LARGEST_SCALE = 3.4e38  # of float32


class _Part(BaseModel):
    """An object with these keys only, and values that are what they seem."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Config(_Part):
    kernel_size: _Size
    stride: _Size
    rank: _Size
    scale: Annotated[float, Field(gt=0, le=_LARGEST_SCALE)]
    targets: Annotated[list[str], Field(min_length=1)]
    init: Init

    @model_validator(mode="after")
    def _fits(self) -> Self:
        DCFTConfig(**self.model_dump())  # a ValueError names what does not fit
        return self


class _Module(_Part):
    name: str
    role: str
    out_features: _Size
    in_features: _Size
    weight: str
    rows: tuple[int, int] | None = None
    count: _Size | None = None
    transposed: bool = False

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        start, end = self.rows or (0, self.out_features)
        if start < 0 or end - start != self.out_features:
            raise ValueError("rows must be out_features rows of the weight")
        return self


class _Base(_Part):
    name: str | None
    revision: str | None
    fingerprint: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class _Model(_Part):
    class_name: Annotated[str, Field(alias="class")]
    labels: list[str]
    # As transformers names them.
    problem_type: (
        Literal["regression", "single_label_classification", "multi_label_classification"] | None
    )


class Description(_Part):
    """What the files of all methods describe; docs/adapter-format.md says what each key means."""

    method: str
    modules: list[_Module]
    head: dict[str, _Shape]
    fixed: list[str]
    base: _Base
    model: _Model
    info: dict[str, JsonValue]
    versions: dict[str, str]
    checksums: list[_Crc32]

    @model_validator(mode="after")
    def _modules_are_disjoint(self) -> Self:
        if len({module.name for module in self.modules}) < len(self.modules):
            raise ValueError("two modules have the same name")
        blocks = defaultdict(list)
        previous = None
        for module in self.modules:
            if module.weight in blocks and previous != module.weight:
                raise ValueError(f"blocks of {module.weight} do not follow each other")
            previous = module.weight
            blocks[module.weight].append(module.rows)
        for weight, rows in blocks.items():
            if len(rows) > 1 and not _disjoint(rows):
                raise ValueError(f"two modules change the same rows of {weight}")
        return self

    def module_specs(self) -> tuple[Module, ...]:
        """Return the adapted weights."""
        return tuple(Module(**module.model_dump()) for module in self.modules)


class DCFTDescription(Description):
    """The description of a DCFT adapter."""

    method: Literal["dcft"]
    config: _Config
    modules: Annotated[list[_Module], Field(min_length=1)]


class BaselineDescription(Description):
    """The description of a file of another method."""

    settings: dict[str, JsonValue]
    seed: int
    trained: Annotated[int, Field(ge=0)]
    tensors: dict[str, _Shape]


def parse_description(text: bytes) -> DCFTDescription | BaselineDescription:
    """Parse and check a description.

    Raises:
        ValueError: it is not JSON, or not a description; names the first key that is wrong.
    """
    try:
        # NaN and Infinity are no JSON, though Python writes them.
        values = from_json(text, allow_inf_nan=False)
        is_dcft = isinstance(values, dict) and values.get("method") == "dcft"
        schema = DCFTDescription if is_dcft else BaselineDescription
        return schema.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None


def first_problem(error: ValidationError) -> str:
    """Return which key is wrong first, and why, without the value."""
    problem = error.errors(include_url=False, include_input=False)[0]
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"])
    return f"{place.removeprefix('.') or 'the whole'}: {problem['msg']}"


def _disjoint(blocks: Sequence[tuple[int, int] | None]) -> bool:
    rows = sorted(block for block in blocks if block is not None)
    ends = [0, *(end for _, end in rows)]
    return len(rows) == len(blocks) and all(
        start >= end for (start, _), end in zip(rows, ends, strict=False)
    )
