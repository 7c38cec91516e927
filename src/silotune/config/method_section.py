"""The method section of a configuration: the method, its adapters and its options."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    Field,
    model_validator,
)

from .sections import STRICT, AsTuple, Count, Name, Sorted, Text


class Method(BaseModel):
    """The federated method and its low-rank adapters; the names are those of PEFT."""

    model_config = STRICT

    name: Literal[
        "ffa-lora",
        "fedit",
        "head-only",
        "rolora",
        "la-lora",
        "fedsa-lora",
        "fedsvd",
        "fedex-lora",
        "flora",
        "flexlora",
        "lora-fair",
        "fedftg",
        "fedftg-seeded",
        "cola",
        "rac-lora",
        "xgblora",
        "reslora",
        "lora-rite",
        "lora-pro",
        "lora-plus",
        "lora-fa",
        "alt-lora",
        "milora",
        "mole",
    ] = Field(
        default="ffa-lora",
        description="What is trained, what is shared, and how the server combines it: see "
        "[methods](methods.md), or `silotune methods`.",
    )
    aggregation: Literal["fedex-lora", "flexlora", "lora-fair", "fedsvd"] | None = Field(
        default=None,
        description="Combine as that method does, in place of averaging A and B by themselves; "
        "its options may be set too. `silotune methods` says which methods can.",
    )
    r: int = Field(
        default=8, ge=1, description="Rank of the adapters. Under xgblora the default is 1."
    )
    ranks: Annotated[dict[Name, Count] | None, Sorted] = Field(
        default=None,
        description="Ranks of silos that differ from `r`, silo: rank, for methods that combine "
        "products alone (flexlora, flora, xgblora). The largest rank is that of the shared "
        "adapter, by which lora_alpha is divided.",
    )
    lora_alpha: float = Field(
        default=8.0,
        gt=0,
        description="Adapters are scaled by lora_alpha / r. Under xgblora the default is 1.",
    )
    lora_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of an adapter's inputs set to zero in training."
    )
    target_modules: Annotated[Text | tuple[Text, ...] | None, AsTuple] = Field(
        default=None,
        description="Layers to adapt: a list of name endings, one regular expression over whole "
        "names, or all-linear; null = the usual ones of the architecture.",
        examples=["[query, value]"],
    )
    layers_to_transform: Annotated[tuple[Annotated[int, Field(ge=0)], ...] | None, AsTuple] = Field(
        default=None, description="Adapt only in these layers, counted from 0; null = in all."
    )
    use_rslora: bool = Field(
        default=False, description="Scale by lora_alpha / sqrt(r) instead (arXiv 2312.03732)."
    )
    init_lora_weights: Literal["kaiming", "orthonormal", "svd"] = Field(
        default="kaiming",
        description="How A begins: Kaiming-uniform (the paper); orthonormal rows; or from the "
        "singular vectors of the public base weights (as PiSSA; not where fresh pairs are drawn).",
    )
    low_pass: bool | None = Field(
        default=None, description="Smooth gradients of A and B along their features."
    )
    refactor_every: int | None = Field(
        default=None, ge=1, description="Rounds between two SVDs of B A."
    )
    randomised: bool | None = Field(default=None, description="Compute them by a randomised SVD.")
    residual_rank: int | None = Field(
        default=None, ge=1, description="Rank that the folded residual is cut back to; null = none."
    )
    balanced: bool | None = Field(
        default=None, description="Split singular values evenly between B and A; or all into B."
    )
    objective: Literal["closed-form", "cosine"] | None = Field(
        default=None,
        description="What the corrected B minimises: the squared error; or the paper's cosine, by "
        "gradient steps.",
    )
    fair_lambda: float | None = Field(
        default=None, ge=0, description="How strongly the corrected B is held at its mean."
    )
    initialization: Literal["average", "fresh"] | None = Field(
        default=None,
        description="What a round begins from: the corrected average; or a fresh pair, the last "
        "one being folded into the base.",
    )
    galore_gap: int | None = Field(
        default=None, ge=1, description="Local steps between two choices of GaLore's projector."
    )
    galore_scale: float | None = Field(
        default=None, gt=0, description="Factor on the steps of whole matrices."
    )
    fold_every: int | None = Field(
        default=None,
        ge=1,
        description="Rounds that a pair lasts, before it is folded into the base and another one "
        "drawn.",
    )
    booster_layers: int | None = Field(
        default=None, ge=1, description="Layers that a round draws; null = a third of them."
    )
    shortcut: Literal["input", "block", "middle"] | None = Field(
        default=None,
        description="What a layer takes from those before it: what they read; their pairs; or "
        "their A x.",
    )
    pre_num: int | None = Field(
        default=None, ge=1, description="How many layers back shortcuts reach; 1 for input."
    )
    booster_seed: int | None = Field(
        default=None, ge=0, description="Seed by which they are drawn."
    )
    escape: bool | None = Field(
        default=None,
        description="Shorten LoRA-RITE's steps by the second moment that is lost when the basis "
        "turns.",
    )
    lora_plus_ratio: float | None = Field(
        default=None, gt=0, description="Learning rate of B by that of A, which is learning_rate."
    )
    damping: float | None = Field(
        default=None,
        ge=0,
        description="Added to the eigenvalues of B^T B and A A^T before gradients are divided by "
        "them; about 0.01 under privacy.",
    )
    full_moments: bool | None = Field(
        default=None,
        description="LoRA-Pro's full mode: Adam's two means are whole matrices, 2 out in numbers "
        "for every layer.",
    )
    experts_per_prompt: int | None = Field(
        default=None,
        ge=1,
        description="Adapted modules of a transformer layer that a prompt goes through; null = "
        "half of them, rounded down.",
    )
    experts: Annotated[tuple[Text, ...] | None, AsTuple] = Field(
        default=None,
        description="Folders of trained adapters in PEFT's format, made for this base model; two "
        "at least. Relative paths start at the current working directory.",
    )
    masked_experts: Annotated[tuple[Text, ...] | None, AsTuple] = Field(
        default=None,
        description="Those of `experts` that are left out; the others' weights grow in proportion.",
    )
    balance_weight: float | None = Field(
        default=None,
        ge=0,
        description="Weight of the term that makes routers and gates use their experts alike.",
    )

    @property
    def title(self) -> str:
        """For people: ``lora-rite``, or ``lora-rite combined as fedex-lora``."""
        return f"{self.name} combined as {self.aggregation}" if self.aggregation else self.name

    @model_validator(mode="before")
    @classmethod
    def _boosters_are_of_rank_1(cls, values: object) -> object:
        """Unless somebody says otherwise, in the paper's words: r = 1 and s = alpha / 1."""
        if isinstance(values, dict) and values.get("name") == "xgblora":
            return {"r": 1, "lora_alpha": 1.0, **values}
        return values
