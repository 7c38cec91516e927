"""The privacy section of a configuration: what is hidden, how, and at what price."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

from pydantic import BaseModel, Field

from silotune.privacy import ClientDP, ExampleDP, NoDP, PrivacyChoice
from silotune.privacy.lifetime.choice import Lifetime

from .sections import STRICT, Text


class LifetimeConfig(BaseModel):
    """All runs on the same records together; a silo's own choice, and not agreed on."""

    model_config = STRICT

    max_epsilon: float | None = Field(
        default=None,
        gt=0,
        description="Ceiling of epsilon over all runs on the same records; a run that would break "
        "it is refused before it trains. null = all is recorded, and nothing refused.",
        examples=[10],
    )
    max_delta: float = Field(
        default=1e-5, gt=0, lt=1, description="Delta of the ceiling, over all runs."
    )
    folder: Text | None = Field(
        default=None,
        description="Folder of the book, outside of all runs; null = what the environment variable "
        "SILOTUNE_LIFETIME_FOLDER names, or lifetime in the user's data folder.",
    )
    record: bool = Field(
        default=True,
        description="Whether charges are written into the book. `lifetime: off` is short for "
        "`lifetime: {record: false}`, for simulations on public data; the certificate says so.",
    )

    def build(self) -> Lifetime:
        """The same as a program would write it."""
        return Lifetime(**self.model_dump())


class PrivacyConfig(BaseModel):
    """Differential privacy for the whole run."""

    model_config = STRICT

    unit: Literal["example", "client", "none"] = Field(
        default="example",
        description="What is protected: each record, by noise at its silo; each client as a "
        "whole, by noise at a trusted server; or nothing.",
    )
    target_epsilon: float | None = Field(
        default=None,
        gt=0,
        description="Budget epsilon for the whole run, of each silo (or of each client); the "
        "noise is computed from it. Give this or `noise_multiplier`.",
        examples=[6],
    )
    noise_multiplier: float | None = Field(
        default=None,
        gt=0,
        description="Standard deviation of the noise in units of the clipping norm; epsilon is "
        "computed from it. Give this or `target_epsilon`.",
        examples=[0.8],
    )
    target_delta: float = Field(
        default=1e-5,
        gt=0,
        lt=1,
        description="Delta of the guarantee; must be below 1 / num_examples of every silo (unit: "
        "client: below 1 / number of clients).",
        examples=["1e-5"],
    )
    max_grad_norm: float = Field(
        default=1.0,
        gt=0,
        description="Clipping norm: the largest L2 norm of one record's gradient over everything "
        "that is trained. For unit: example.",
    )
    relation: Literal["add-remove", "zero-out", "replace-one"] = Field(
        default="add-remove",
        description="When data sets are neighbours: one record (or client) more or less; one "
        "that gives nothing in its place; or another one in its place, which costs more.",
    )
    sampling: Literal["poisson", "truncated-poisson", "rotation"] = Field(
        default="poisson",
        description="How records come into a batch (unit: client: clients into a round): each by "
        "its own secret coin; the same, cut to `max_batch_size` (needs unit: example and relation: "
        "zero-out); or each in turn, which needs no secret coins (with noise: correlated).",
    )
    max_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Most records in a batch of `truncated-poisson`; null = 4 * train.batch_size.",
    )
    noise: Literal["gaussian", "discrete", "correlated"] | None = Field(
        default=None,
        description="Gaussian in double precision; discrete, on a grid, which closes attacks on "
        "floating-point noise at the same epsilon (unit: example); or correlated over steps "
        "(unit: client: over rounds), for sampling: rotation. null = discrete (unit: client: "
        "gaussian).",
    )
    bands: int | None = Field(
        default=None,
        ge=1,
        description="How many steps (unit: client: rounds) correlated noise reaches back; null = "
        "the best for the run.",
    )
    max_update_norm: float = Field(
        default=1.0,
        gt=0,
        description="Clipping norm of unit: client: the largest L2 norm of what a client changes "
        "in a round; where clipping is adaptive, the first one.",
    )
    client_sampling_rate: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Chance of a client to take part in a round, by a secret coin (unit: client). "
        "With sampling: rotation, 1 / the number of rounds in which each client has one turn.",
    )
    adaptive_clipping: bool = Field(
        default=False,
        description="Let the clipping norm of unit: client follow `target_quantile` (arXiv "
        "1905.03871).",
    )
    target_quantile: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Share of clients whose change adaptive clipping leaves whole.",
    )
    count_noise: float | None = Field(
        default=None,
        gt=0,
        description="Let each silo release its number of records once, with Gaussian noise of "
        "this many records, as its weight in the mean (at most twice the declared number); it is "
        "paid from the budget. null = weights are the declared numbers.",
        examples=[50],
    )
    metric_noise: float | None = Field(
        default=None,
        gt=0,
        description="Let each silo release, after each scored round, how many of its held-out "
        "records the model gets right, with Gaussian noise of this many records; the held-out "
        "records pay for it. For `evaluation: site` and classification. null = scores stay at "
        "the silo.",
        examples=[20],
    )
    insecure_seeded_noise: bool = Field(
        default=False,
        description="Draw noise and coins from train.seed, for reproducible experiments. NOT "
        "PRIVATE, and marked so everywhere.",
    )
    reserve_rounds: int = Field(
        default=1,
        ge=0,
        description="Rounds paid for in advance, for rounds that must be trained again.",
    )
    lifetime: LifetimeConfig = LifetimeConfig()

    def build(self) -> PrivacyChoice:
        """Who is hidden, and at what price, as a program would write it.

        Raises:
            ValueError: naming fields, if nothing is proved for the combination.
        """
        match self.unit:
            case "example":
                return ExampleDP(**self._given(ExampleDP))
            case "client":
                return ClientDP(**self._given(ClientDP))
            case "none":
                return NoDP()

    def _given(self, choice: type[ExampleDP | ClientDP]) -> dict[str, Any]:
        """The fields of a choice, but for a noise that is left to it."""
        given = {field.name: getattr(self, field.name) for field in fields(choice)}
        return given if self.noise else {k: v for k, v in given.items() if k != "noise"}
