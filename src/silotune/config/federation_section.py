"""The section ``federation``: sites that are elsewhere, and how they are reached."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from .sections import STRICT, AsTuple, Name, Text


class FederationConfig(BaseModel):
    """Clients at their sites, which keep their records; without any, all is on this machine."""

    model_config = STRICT

    sites: Annotated[tuple[Name, ...], AsTuple] = Field(
        default=(),
        description="Names of the sites that take part, as they were invited. They say where their "
        "records are, so `data` says only how these look.",
    )
    kit: Text | None = Field(
        default=None,
        description="Folder that `silotune federation create` made: this coordinator's key, and "
        "the sites' public ones. Needed with `sites`.",
    )
    folder: Text | None = Field(
        default=None,
        description="With runtime: folder, where orders and answers are laid; null = `exchange` "
        "inside the kit.",
    )
    offer_deadline: float = Field(
        default=7 * 24 * 3600.0,
        gt=0,
        description="Seconds in which every site must have accepted a run; with `min_clients`, so "
        "many, and the others may join at the beginning of a later round (not with "
        "`clients_per_round` or `client_sampling_rate`).",
    )
