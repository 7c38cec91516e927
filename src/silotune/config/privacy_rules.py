"""What the keys of the privacy section mean together: combinations without a proof are refused."""

from __future__ import annotations

from collections.abc import Iterator

from .errors import Problem
from .method_section import MethodSection
from .privacy_section import Privacy
from .sections import Data, Model, Train

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

WHOLE = 0.005
"""By what part of itself a client sampling rate may miss 1 / a whole number: 0.333 means 1 / 3."""

RELEASES = ("count_noise", "metric_noise")
"""Keys that let a silo send a noisy number which it need not send."""


def budget(privacy: Privacy) -> Iterator[Problem]:
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


def mechanism(privacy: Privacy) -> Iterator[Problem]:
    """Only keys and combinations for which a guarantee is proved."""
    for key, unit in ONLY_FOR.items():
        other = privacy.unit not in (unit, "none")
        if other and getattr(privacy, key) != Privacy.model_fields[key].default:
            yield Problem(f"privacy.{key}", f"is for privacy.unit: {unit}; leave it out")
    match privacy.unit:
        case "example":
            yield from _together(privacy)
            yield from _records(privacy)
        case "client":
            yield from _central(privacy)


def _together(privacy: Privacy) -> Iterator[Problem]:
    """Correlated noise and rotation, under either unit."""
    if (privacy.noise == "correlated") != (privacy.sampling == "rotation"):
        yield Problem(
            "privacy.noise",
            "correlated belongs to privacy.sampling: rotation, and rotation to correlated; no "
            "guarantee is proved here for one without the other",
        )
    if privacy.bands is not None and privacy.noise != "correlated":
        yield Problem("privacy.bands", "is for noise: correlated; leave it out")


def _records(privacy: Privacy) -> Iterator[Problem]:
    """What silos do with their records."""
    if privacy.sampling == "truncated-poisson":
        if privacy.relation != "zero-out":
            yield Problem(
                "privacy.relation",
                "sampling: truncated-poisson is proved for zero-out alone; set it",
            )
        if privacy.noise != "gaussian":
            yield Problem(
                "privacy.noise", "sampling: truncated-poisson is proved for gaussian; set it"
            )
    elif privacy.max_batch_size is not None:
        yield Problem("privacy.max_batch_size", "is for sampling: truncated-poisson; leave it out")
    if privacy.noise == "discrete" and privacy.relation == "replace-one":
        yield Problem(
            "privacy.relation", "noise: discrete is proved for add-remove and zero-out; choose one"
        )


def _central(privacy: Privacy) -> Iterator[Problem]:
    """What the server does with its clients."""
    if privacy.relation == "replace-one":
        yield Problem("privacy.relation", "unit: client knows add-remove and zero-out; choose one")
    if privacy.sampling == "truncated-poisson":
        yield Problem("privacy.sampling", "truncated-poisson is for unit: example; use poisson")
    elif privacy.noise == "discrete":
        yield Problem("privacy.noise", "discrete is for unit: example; use gaussian or correlated")
    else:
        yield from _together(privacy)
    if privacy.noise != "correlated":
        return
    if privacy.adaptive_clipping:
        yield Problem(
            "privacy.adaptive_clipping",
            "noise: correlated needs the same clipping norm in every round; set it to false",
        )
    turns = privacy.client_turns
    if abs(turns * privacy.client_sampling_rate - 1.0) > WHOLE:
        yield Problem(
            "privacy.client_sampling_rate",
            f"in a rotation it is 1 / a whole number of turns; set it to {1 / turns:.4g}",
        )


def clients(privacy: Privacy, train: Train) -> Iterator[Problem]:
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


def count(privacy: Privacy, train: Train) -> Iterator[Problem]:
    """A noisy count is a weight, and nothing else."""
    if privacy.unit != "example" or privacy.count_noise is None:
        return
    if train.weighting == "uniform":
        yield Problem(
            "privacy.count_noise",
            "is a weight, and train.weighting: uniform uses none; leave it out",
        )
    if privacy.relation == "replace-one":
        yield Problem(
            "privacy.count_noise",
            "relation: replace-one takes the number of records as known to everybody; declare it "
            "in data.num_examples and leave this out",
        )


def metric(
    privacy: Privacy, model: Model | None, data: Data | None, evaluation: str | None
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
    if model and model.task == "causal-lm":
        yield Problem(
            "privacy.metric_noise",
            "counts right answers, which a causal-lm has none of; leave it out",
        )


def dropout(privacy: Privacy, method: MethodSection) -> Iterator[Problem]:
    """Masks go by a record's place in its batch, so one record would move another's."""
    if privacy.unit == "example" and method.given("lora_dropout") > 0:
        yield Problem(
            "method.lora_dropout",
            "must be 0 for privacy.unit: example: a record's mask would depend on who else is in "
            "its batch, which clipping does not bound",
        )


def physical(privacy: Privacy, train: Train) -> Iterator[Problem]:
    """A truncated batch must have room for the usual one."""
    if privacy.max_batch_size is not None and privacy.max_batch_size < train.batch_size:
        yield Problem(
            "privacy.max_batch_size",
            f"must be at least train.batch_size = {train.batch_size}; 3 to 4 times as much costs "
            "nothing",
        )
