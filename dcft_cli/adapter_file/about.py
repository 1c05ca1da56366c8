"""The schema of what dcft reads in an adapter file's `info`, whose contents are free."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class _Part(BaseModel):
    """An object that may have further keys, which are not read."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)


class _AboutTask(_Part):
    name: str | None = None
    type: str | None = None
    unanswerable: bool = False
    max_answer_length: int = 30
    threshold: float | str = 0.5
    null_threshold: float | str = 0.0


class _AboutData(_Part):
    text: list[str] | None = None
    max_length: int | None = None


class StoredDecision(_Part):
    """What training chose on validation rows."""

    temperature: Annotated[float | None, Field(gt=0)] = None
    thresholds: float | dict[str, float] | None = None
    null_threshold: float | None = None

    def chosen(self) -> dict[str, Any]:
        """Return its parts: `Decision.to_json(chosen)` of the task that wrote it."""
        return self.model_dump(exclude_none=True)


class About(_Part):
    """The sections of `info` that `dcft train` writes."""

    task: _AboutTask = _AboutTask()
    data: _AboutData = _AboutData()
    model: dict[str, JsonValue] = {}
    decision: StoredDecision = StoredDecision()
