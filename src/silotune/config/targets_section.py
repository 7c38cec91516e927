"""The section ``targets``: what a task makes of what records are learned with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from silotune.objectives.text_embedding import check_loss

from .errors import REFUSED
from .sections import STRICT, AsTuple, Name, Sorted

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


def _known_loss(value: object) -> object:
    """One that looks at other records is refused with the reason, and not as a misspelt word."""
    try:
        return check_loss(value)
    except ValueError as error:
        raise PydanticCustomError(REFUSED, "{why}", {"why": str(error)}) from None


class TargetsConfig(BaseModel):
    """Public numbers of a task; give those that yours has. null = what its objective has."""

    model_config = STRICT

    threshold: Annotated[Share | dict[Name, Share] | None, Sorted] = Field(
        default=None,
        description="Probability from which a label is given, one number or label: number; 0.5 "
        "where none is named (classification with several labels).",
    )
    class_weights: Annotated[dict[Name, Positive] | None, Sorted] = Field(
        default=None,
        description="Label: what the loss of its records is multiplied by, 1 for those that are "
        "not named; with several labels on a record, the loss of a label where it has it. They "
        "are public, so take them from what is known anyway (classification).",
    )
    label_smoothing: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share of a label that is spread over all of them; with several labels on a "
        "record, share of each 0 and 1 that is replaced by a half (classification).",
    )
    target_mean: Annotated[float | tuple[float, ...] | None, AsTuple] = Field(
        default=None,
        description="About the mean of the numbers, one for all or one for each column. It is "
        "public, and declared from what is known anyway, never taken from records (regression, "
        "which needs it).",
    )
    target_scale: Annotated[Positive | tuple[Positive, ...] | None, AsTuple] = Field(
        default=None,
        description="About their standard deviation, likewise (regression, which needs it).",
    )
    score_range: Annotated[tuple[float, float] | None, AsTuple] = Field(
        default=None,
        description="The lowest and the highest score that there may be. It is public, and "
        "declared, never taken from records (text-embedding, which needs it).",
    )
    cosine_range: Annotated[tuple[float, float] | None, AsTuple] = Field(
        default=None,
        description="The cosines that these two stand for; null = 0 and 1 (text-embedding).",
    )
    loss: Annotated[Literal["mse", "huber"] | None, BeforeValidator(_known_loss)] = Field(
        default=None,
        description="Squared errors of standardised numbers, or of cosines, or Huber's, which grow "
        "linearly where they are large; null = mse (regression, text-embedding). A contrastive "
        "loss is refused: by it one record's loss depends on others.",
    )
    huber_delta: float | None = Field(
        default=None,
        gt=0,
        description="From how many standard units on they do, or from what error of a cosine; "
        "null = 1 (regression), 0.1 (text-embedding).",
    )
    source_prefix: str | None = Field(
        default=None,
        description="What every source begins with, as the model was taught: `summarize: ` for T5; "
        "null = nothing (seq2seq).",
    )
    max_target_length: int | None = Field(
        default=None,
        ge=2,
        description="Tokens of a target; the rest is cut; null = 64 (seq2seq).",
    )

    def given(self) -> dict[str, Any]:
        """Those that are said."""
        return {name: value for name, value in self if value is not None}
