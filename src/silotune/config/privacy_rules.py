"""What the keys of the privacy section mean together: combinations without a proof are refused."""

from __future__ import annotations

from collections.abc import Iterator

from silotune.objectives import find
from silotune.privacy.size_checks import (
    check_batch_size,
    check_delta,
    check_max_batch_size,
)

from .data_section import DataConfig
from .errors import Problem
from .fields import refused
from .method_section import MethodConfig
from .privacy_section import PrivacyConfig
from .sections import ModelConfig, TrainConfig

ONLY_FOR = {
    "max_batch_size": "example",
    "max_grad_norm": "example",
    "count_noise": "example",
    "metric_noise": "example",
    "max_update_norm": "client",
    "client_sampling_rate": "client",
    "adaptive_clipping": "client",
    "target_quantile": "client",
}
"""Keys of the privacy section that mean something under one unit alone."""

_ANY_NOISE = {"target_epsilon": None, "noise_multiplier": 1.0}
"""What combinations are proved does not depend on the price."""

RELEASES = ("count_noise", "metric_noise")
"""Keys that let a silo send a noisy number which it need not send."""


def budget(privacy: PrivacyConfig) -> Iterator[Problem]:
    """Either a budget or the noise itself."""
    choices = ("target_epsilon", "noise_multiplier")
    given = [key for key in choices if getattr(privacy, key) is not None]
    if privacy.unit == "none":
        releases = [key for key in RELEASES if getattr(privacy, key) is not None]
        for key in (*given, *releases):
            yield Problem(f"privacy.{key}", "has no effect with privacy.unit: none; set it to null")
    elif not given:
        yield Problem(
            "privacy.target_epsilon",
            f"needed for privacy.unit: {privacy.unit}; set it (6, say) or "
            "privacy.noise_multiplier, or choose privacy.unit: none",
        )
    elif len(given) == 2:
        yield Problem(
            "privacy.target_epsilon",
            "each determines the other, so give this or privacy.noise_multiplier, and set the "
            "other to null",
        )


def mechanism(privacy: PrivacyConfig) -> Iterator[Problem]:
    """Only keys and combinations for which a guarantee is proved."""
    for key, unit in ONLY_FOR.items():
        other = privacy.unit not in (unit, "none")
        if other and getattr(privacy, key) != PrivacyConfig.model_fields[key].default:
            yield Problem(f"privacy.{key}", f"is for privacy.unit: {unit}; leave it out")
    yield from refused(privacy.model_copy(update=_ANY_NOISE).build)


def lifetime(privacy: PrivacyConfig) -> Iterator[Problem]:
    """A ceiling is kept for records alone."""
    yield from refused(privacy.lifetime.build)
    if privacy.lifetime.max_epsilon is not None and privacy.unit != "example":
        yield Problem(
            "privacy.lifetime.max_epsilon",
            "is for privacy.unit: example: no book is kept of what whole clients pay, nor of runs "
            "that hide nobody; leave it out",
        )


def clients(privacy: PrivacyConfig, train: TrainConfig) -> Iterator[Problem]:
    """What client-level privacy asks of the rounds."""
    if privacy.unit != "client":
        return
    if train.weighting != "uniform":
        yield Problem(
            "train.weighting",
            "must be uniform for privacy.unit: client, or a large client's noise would be too "
            "small; set it",
        )
    if train.min_clients is not None:
        yield Problem(
            "train.min_clients",
            "privacy.unit: client keeps secret who takes part, so rounds need no quorum; leave it "
            "out",
        )


def count(privacy: PrivacyConfig, train: TrainConfig) -> Iterator[Problem]:
    """A noisy count is a weight, and nothing else."""
    if privacy.unit != "example" or privacy.count_noise is None:
        return
    if train.weighting == "uniform":
        yield Problem(
            "privacy.count_noise",
            "is a weight, and train.weighting: uniform uses none; leave it out",
        )


def metric(
    privacy: PrivacyConfig,
    model: ModelConfig | None,
    data: DataConfig | None,
    evaluation: str | None,
) -> Iterator[Problem]:
    """A noisy score of held-out records; parts that are None are not looked at."""
    if privacy.metric_noise is None:
        if data and data.num_held_out is not None:
            yield Problem(
                "data.num_held_out", "is for scores under privacy.metric_noise; leave it out"
            )
        return
    if privacy.unit != "example":
        return
    if evaluation not in (None, "site"):
        yield Problem(
            "privacy.metric_noise",
            "is for evaluation: site, where scores would otherwise stay at the silo; leave it out",
        )
    if model and not find(model.task).counts_right:
        yield Problem(
            "privacy.metric_noise",
            "counts right answers, at most one a record, which a "
            f"{model.task} does not give; leave it out",
        )


def dropout(privacy: PrivacyConfig, method: MethodConfig) -> Iterator[Problem]:
    """Masks go by a record's place in its batch, so one record would move another's."""
    if privacy.unit == "example" and method.given("lora_dropout") > 0:
        yield Problem(
            "method.lora_dropout",
            "must be 0 for privacy.unit: example: a record's mask would depend on who else is in "
            "its batch, which clipping does not bound",
        )


def physical(privacy: PrivacyConfig, train: TrainConfig) -> Iterator[Problem]:
    """A truncated batch must have room for the usual one."""
    yield from refused(check_max_batch_size, privacy.max_batch_size, train.batch_size)


def delta(privacy: PrivacyConfig, data: DataConfig) -> Iterator[Problem]:
    """Delta must fit the declared sizes, as far as these are known so early."""
    if privacy.unit == "example" and data.num_examples:
        yield from refused(check_delta, privacy.target_delta, data.num_examples)


def batch(train: TrainConfig, data: DataConfig) -> Iterator[Problem]:
    """So must the batch, hidden or not."""
    if data.num_examples:
        default = (
            "" if "batch_size" in train.model_fields_set else f" ({train.batch_size} by default)"
        )
        for problem in refused(check_batch_size, train.batch_size, data.num_examples):
            yield Problem(problem.key, problem.text + default)
