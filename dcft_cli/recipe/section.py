"""What the sections of a recipe have in common."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DType = Literal["float32", "bfloat16"]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A section: known keys only, and values that are what they seem."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
