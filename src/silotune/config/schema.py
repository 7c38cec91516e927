"""The configuration as a whole, and the list of its keys.

A key has one home, written dotted: ``privacy.target_epsilon``. ``LEAVES`` holds them all in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr, model_validator
from pydantic.fields import FieldInfo

from silotune.reports.trackers import TrackerName

from . import rules
from .data_section import DataConfig
from .federation_section import FederationConfig
from .method_section import MethodConfig, Section, field_of, method_fields, read_section
from .privacy_section import PrivacyConfig
from .sections import STRICT, AsTuple, ModelConfig, Text, TrainConfig
from .targets_section import TargetsConfig


class Config(BaseModel):
    """Everything that a run is told. Frozen; construction checks all of it."""

    model_config = STRICT

    model: ModelConfig
    data: DataConfig
    targets: TargetsConfig = TargetsConfig()
    method: Section = Field(default_factory=lambda: MethodConfig.model_validate(read_section({})))
    privacy: PrivacyConfig = PrivacyConfig()
    train: TrainConfig = TrainConfig()
    federation: FederationConfig = FederationConfig()
    evaluation: Literal["simulation", "site", "public"] = Field(
        default="simulation",
        description="Who scores on what: one machine sees everything, as in research, and epsilon "
        "does not cover the metrics; each silo on its own held-out records, and keeps the scores; "
        "or on valid and test splits that everyone may see.",
    )
    baselines: Annotated[tuple[Literal["silo-alone"], ...], AsTuple] = Field(
        default=(),
        description="Research only: also train each silo alone, to compare. Needs `evaluation: "
        "simulation`.",
    )
    runtime: Literal["in-process", "pool", "ray", "folder", "nvflare", "flower"] = Field(
        default="in-process",
        description="One process for all silos; a pool of worker processes; or those of a Ray "
        "cluster (`pip install 'silotune[ray]'`): several GPUs or machines of one owner, with one "
        "disk. For sites elsewhere: files in a folder that is shared or carried; NVIDIA FLARE; or "
        "Flower, for who runs it already.",
    )
    workers: int = Field(
        default=2,
        ge=1,
        description="Worker processes of the pool; of Ray too, if its cluster has no GPU, else one "
        "a GPU.",
    )
    crowd: int = Field(
        default=1,
        ge=1,
        description="Silos of a simulation that train together, their records in the same passes "
        "through the model, at most `train.per_device_train_batch_size` at once; 1 = one silo "
        "after the other. Faster where silos have few records a step. Results "
        "depend on it in their last bits. Needs `runtime: in-process`; "
        "refused where clients are hidden (privacy.unit: client).",
    )
    defaults: Literal["usual", "auto"] = Field(
        default="usual",
        description="What a key has that nobody sets: its own default; or, with auto, what did "
        "best where it was measured nearest by public facts (task, unit and epsilon, declared "
        "labels, silos and records), from a table that comes with silotune. What was chosen is "
        "written out, with the reason.",
    )
    output_dir: Text = Field(
        default="runs/run",
        description="Folder of the result; must not exist yet. When a file is loaded that does "
        "not set it: runs/ and the name of the file.",
    )
    report_to: Annotated[tuple[TrackerName, ...], AsTuple] = Field(
        default=(),
        description="Trackers that are told of every round, each an extra of its name "
        "(`silotune[mlflow]`). TensorBoard's files stay in the run's folder and hold what "
        "`metrics.jsonl` holds; the others are told of no single silo, and no silo's name. wandb "
        "is offline unless WANDB_MODE says otherwise.",
    )

    _reasons: tuple[str, ...] = PrivateAttr(default=())

    def chosen_for(self, reasons: tuple[str, ...]) -> Self:
        """The same, which knows why keys that were left open are what they are."""
        other = self.model_copy()
        other._reasons = reasons
        return other

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why keys that were left open are what they are, each beginning with its key."""
        return self._reasons

    @model_validator(mode="after")
    def _follows_the_rules(self) -> Self:
        parts = rules.Parts(
            self.model,
            self.data,
            self.method,
            self.privacy,
            self.train,
            self.evaluation,
            self.baselines,
            self.federation,
            self.runtime,
            self.targets,
            self.crowd,
        )
        problems = list(rules.problems(parts))
        if problems:
            raise ValueError("\n".join(map(str, problems)))
        return self

    @model_validator(mode="after")
    def _trains_as_usual(self) -> Self:
        """With the usual optimiser and its usual rate, unless somebody says another."""
        usual = {
            "optimizer": self.train.moved_by(self.method.chosen, self._clipped_at),
            "learning_rate": self.train.learning_rate or self.usual_rate,
        }
        object.__setattr__(self, "train", self.train.model_copy(update=usual))
        return self

    @property
    def usual_rate(self) -> float:
        """The learning rate of such a run that names none."""
        return self.train.usual_rate(self.method.chosen, self._clipped_at)

    @property
    def _clipped_at(self) -> float | None:
        return self.privacy.max_grad_norm if self.privacy.unit == "example" else None


ENVIRONMENT = frozenset(
    {
        "runtime",
        "federation.kit",
        "federation.folder",
        "federation.offer_deadline",
        "workers",
        "crowd",
        "output_dir",
        "report_to",
        "baselines",
        "train.device",
        "train.threads",
        "train.round_deadline",
        "train.wait_after_quorum",
        "train.per_device_eval_batch_size",
        "train.prefix_cache",
        "train.eval_every",
        "privacy.lifetime.max_epsilon",
        "privacy.lifetime.max_delta",
        "privacy.lifetime.folder",
        "privacy.lifetime.record",
    }
)
"""Keys that say where and beside what a run happens; a resumed run may change them."""


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    fields = method_fields() if model is MethodConfig else model.model_fields
    for name, field in fields.items():
        yield prefix + name, field
        if (section := _section(field)) is not None:
            yield from _walk(section, f"{prefix}{name}.")


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


SECTIONS: Mapping[str, type[BaseModel]] = {
    key: section for key, field in _walk(Config, "") if (section := _section(field)) is not None
}
"""Dotted key -> model of every section, ``data.silos`` among them."""

LEAVES: Mapping[str, FieldInfo] = {
    key: field for key, field in _walk(Config, "") if key not in SECTIONS
}
"""Dotted home key -> field of everything that can be set, in order; options of ours alone."""


def leaf(key: str) -> FieldInfo | None:
    """The field of a key; of an option of somebody's own method as well."""
    section, _, name = key.rpartition(".")
    return LEAVES.get(key) or (field_of(name) if section == "method" else None)
