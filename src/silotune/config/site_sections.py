"""The sections of a site's file: every key with its type, default and meaning.

Defaults are the strictest: what is not said is not allowed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field

from silotune.methods.registry import built_in
from silotune.privacy import Relation
from silotune.privacy.choice import Unit
from silotune.privacy.lifetime.budget import Ceiling
from silotune.site import Policy, PrivacyPolicy
from silotune.site.policy import Approve, Noise, Personal, Release

from .sections import STRICT, AsTuple, Count, Name, Sorted, Text

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SiteSplitsConfig(BaseModel):
    """Files inside a folder `path`; without any, `path` as a whole is trained on."""

    model_config = STRICT

    train: Text | None = Field(default=None, description="File name of what is trained on.")
    valid: Text | None = Field(
        default=None,
        description="Of what rounds are scored on here; null = what `valid_fraction` holds out.",
    )
    test: Text | None = Field(
        default=None, description="Of what the result is scored on here; null = nothing."
    )


class SiteDataConfig(BaseModel):
    """The records of the site, which never leave it. How they look, the coordinator's terms say."""

    model_config = STRICT

    path: Text = Field(
        description="File (csv, tsv, json, jsonl, parquet, feather, arrow, xlsx; also packed) or "
        "folder; a relative path starts at the folder of this file.",
        examples=["/data/notes"],
    )
    splits: SiteSplitsConfig = SiteSplitsConfig()
    delimiter: Text | None = Field(
        default=None, description="Of csv and tsv files; null = a comma, or a tab."
    )
    encoding: Text | None = Field(
        default=None, description="Of text files, as Python calls it; null = UTF-8."
    )
    label_map: Annotated[dict[Name, Name | None], Sorted] = Field(
        default={},
        description="What these records call a label: its name in the terms, or null for none, so "
        "that its records are left out (where records have several, that they lack it).",
    )
    valid_fraction: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Chance of each record to be held out for scoring where no valid file is "
        "named; its own content decides.",
    )
    num_examples: Count = Field(
        description="Public number of training records that the site declares. Noise is made for "
        "it, so never more than there are; a round number below the real one is usual.",
        examples=[3900],
    )
    num_held_out: Count | None = Field(
        default=None,
        description="The same of held-out records; needed where `policy.releases` has metric.",
    )


class CeilingConfig(BaseModel):
    """The most that all runs on these records may cost together."""

    model_config = STRICT

    epsilon: float = Field(gt=0, description="Composed from the book in `home`.", examples=[20])
    delta: float = Field(gt=0, lt=1, description="Over all runs.", examples=["1e-5"])

    def build(self) -> Ceiling:
        """The same as a program would write it."""
        return Ceiling(**self.model_dump())


class PrivacyPolicyConfig(BaseModel):
    """What one run may cost the records, and how they must be hidden."""

    model_config = STRICT

    units: Annotated[tuple[Unit, ...], AsTuple] = Field(
        default=("example",),
        description="Units of privacy that are allowed. client: the coordinator is trusted with "
        "what the site sends; none: nothing is hidden, for rehearsals on made-up records only.",
    )
    max_epsilon: float = Field(default=0.0, ge=0, description="Of one run.", examples=[6])
    max_delta: float = Field(default=0.0, ge=0, lt=1, description="Of one run.", examples=["1e-5"])
    lifetime: CeilingConfig | None = Field(
        default=None,
        description="Of all runs on these records; must be said where units is [example].",
        examples=["{epsilon: 20, delta: 1e-5}"],
    )
    relations: Annotated[tuple[Relation, ...], AsTuple] = Field(
        default=(),
        description="When data sets may be called neighbours.",
        examples=["[add-remove]"],
    )
    noise: Annotated[tuple[Noise, ...], AsTuple] = Field(
        default=(), description="Kinds that are allowed.", examples=["[gaussian, discrete]"]
    )
    min_other_sites: int = Field(
        default=1, ge=0, description="Other sites that every mean must be of at least."
    )

    def build(self) -> PrivacyPolicy:
        """The same as a program would write it.

        Raises:
            ValueError: naming a field, if two contradict each other.
        """
        life = None if self.lifetime is None else self.lifetime.build()
        return PrivacyPolicy(**{**self.model_dump(), "lifetime": life})


class PolicyConfig(BaseModel):
    """What the site takes part in. What is not said is not allowed."""

    model_config = STRICT

    approve: Approve = Field(
        default="each",
        description="each: a person looks at every run first (`silotune site approve RUN`); "
        "listed: only runs whose digests stand in `approved`; any: nobody looks.",
    )
    approved: Annotated[tuple[Digest, ...], AsTuple] = Field(
        default=(), description="SHA-256 of offers, as `silotune site show` prints them."
    )
    coordinator: str = Field(
        default="",
        description="Whose offers are looked at, by the name in its certificate; empty = nobody's.",
    )
    privacy: PrivacyPolicyConfig = PrivacyPolicyConfig()
    columns: Annotated[tuple[Name, ...], AsTuple] = Field(
        default=(),
        description="Columns of the records that may be read; empty = any, but none where nobody "
        "looks (`approve: any`) at a run of unit client or none.",
        examples=["[note, department]"],
    )
    methods: Annotated[tuple[Literal[tuple(built_in())], ...], AsTuple] = Field(  # type: ignore[valid-type]
        default=(), description="Methods that may train.", examples=["[ffa-lora, head-only]"]
    )
    max_rounds: int = Field(default=0, ge=0, description="Of one run.", examples=[100])
    max_local_steps: int = Field(default=0, ge=0, description="Of one round.", examples=[50])
    releases: Annotated[tuple[Release, ...], AsTuple] = Field(
        default=(),
        description="Noisy numbers that may be sent besides the update: count (of records), "
        "metric (right answers on held-out ones).",
    )
    personal: Personal = Field(
        default="refuse",
        description="keep: tensors may be trained that stay at the site; refuse: they may not.",
    )
    accept_result: bool = Field(
        default=False, description="Whether the final adapter is written into `home`."
    )

    def build(self) -> Policy:
        """The same as a program would write it.

        Raises:
            ValueError: naming a field, if two contradict each other.
        """
        return Policy(**{**self.model_dump(), "privacy": self.privacy.build()})


class SiteConfig(BaseModel):
    """The whole file. Frozen; construction checks every single key."""

    model_config = STRICT

    name: Text = Field(description="Of the site, as in its certificate.", examples=["hosp-1"])
    data: SiteDataConfig
    home: Text = Field(
        description="Folder of ledgers, keys and what was sent. Back it up, and never put an older "
        "copy back. A relative path starts at the folder of this file.",
        examples=["/var/lib/silotune"],
    )
    models: Annotated[dict[Digest, Text], Sorted] = Field(
        default={},
        description="SHA-256 of a base model's files of weights (`silotune site show` prints the "
        "line to paste): the folder that holds it. Nothing is downloaded.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where to compute; auto = cuda where there is one."
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of the trainer; null = torch decides."
    )
    prefix_cache: Literal["off", "auto", "memory", "disk"] = Field(
        default="off",
        description="Keep what the layers below the lowest adapted one make of a record until the "
        "process ends: in memory, or on the disk in a file without a name in the folder of the "
        "run. It is as good as the records; the first round, or scoring, takes longer. auto = in "
        "memory, of records that come again, up to 1 GB by the declared number.",
    )
    policy: PolicyConfig = PolicyConfig()


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a key holds, or may hold; None for one that holds a value.

    Args:
        annotation: of the key.
    """
    for part in get_args(annotation) or (annotation,):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None
