"""Mechanisms: what the configuration asks ``privacy.calibration`` for, in its own words."""

from __future__ import annotations

from collections.abc import Mapping

from silotune import privacy
from silotune.config import Config, naming_keys, privacy_choice
from silotune.privacy import Charge, ClientMechanism, PrivacyBudget, ServerMechanism, calibration
from silotune.privacy.calibration import Training
from silotune.privacy.ledger.noisy_counts import Releases


def declared_sizes(config: Config, records: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """The public number of records of each silo, and notices.

    Without privacy the size itself is used where none is declared.

    Args:
        config: may declare one number, or one for each silo.
        records: real training sizes; they go no further than this function.

    Raises:
        ValueError: if a silo is declared that does not exist, or one that exists is not.
    """
    declared = config.data.num_examples
    if declared is None and config.privacy.unit == "none":
        return dict(records), []
    return privacy.declared_sizes("data.num_examples", declared, records)


def declared_held_out(
    config: Config, records: Mapping[str, int]
) -> tuple[dict[str, int], list[str]]:
    """The same of held-out records; nothing unless noisy scores are divided by them.

    Raises:
        ValueError: as ``declared_sizes``.
    """
    if config.privacy.metric_noise is None:
        return {}, []
    return privacy.declared_sizes("data.num_held_out", config.data.num_held_out, records)


def mechanisms(config: Config, sizes: Mapping[str, int]) -> dict[str, ClientMechanism]:
    """One mechanism a silo.

    Raises:
        ValueError: if delta or the batch does not fit a declared size, or the target cannot be
            reached.
    """
    with naming_keys():
        return calibration.client_mechanisms(
            privacy_choice(config.privacy), sizes, training(config)
        )


def central_mechanism(config: Config, clients: int) -> ServerMechanism:
    """Whom the server asks and how it forms their mean.

    Args:
        config: as resolved.
        clients: how many there are; public.

    Raises:
        ValueError: if delta is too large for so few clients, the target cannot be reached, or
            the guarantee would be empty.
    """
    if config.privacy.unit == "client" and config.data.person is not None:
        raise ValueError(
            "data.person: silos' costs are composed for privacy.unit: example alone; leave it out. "
            "Somebody whose records are at several clients is protected less than a client"
        )
    with naming_keys():
        return calibration.server_mechanism(
            privacy_choice(config.privacy), clients, training(config)
        )


def training(config: Config) -> Training:
    """What is public of the run, and decides its price."""
    train = config.train
    return Training(
        rounds=train.num_rounds,
        local_steps=train.local_steps,
        batch_size=train.batch_size,
        scores=sum(scored(config, n) for n in range(1, train.num_rounds + 1)),
        seed=train.seed,
    )


def releases(config: Config, name: str, held_out: int) -> Releases:
    """What a silo sends besides its update.

    Args:
        config: as resolved.
        name: of the silo.
        held_out: its declared number of held-out records.
    """
    choice = privacy_choice(config.privacy)
    return calibration.releases(choice, name, held_out, config.train.seed)


def beside_training(config: Config) -> tuple[Charge, ...]:
    """What training records pay once for the number of them."""
    return calibration.beside_training(privacy_choice(config.privacy))


def budget(config: Config) -> PrivacyBudget | None:
    """What is enforced; None if the noise was given instead of an epsilon."""
    return privacy_choice(config.privacy).budget


def scored(config: Config, finished_rounds: int) -> bool:
    """Whether the state after so many rounds is scored."""
    train = config.train
    return finished_rounds % train.eval_every == 0 or finished_rounds == train.num_rounds
