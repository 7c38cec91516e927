"""FedSVD: clients train B alone; now and then the server turns the pair into its own SVD."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from silotune.core import ClientMean, GlobalState, Key, Role, generator
from silotune.linalg import LowRank, dense_svd, qr, sketched_svd, triangle

from .base import Aggregator, Combined, own_type


@dataclass(frozen=True, kw_only=True)
class Refactor(Aggregator):
    """U S V^T = E[B] A, B' = U S, A' = V^T (FedSVD, arXiv 2505.12805). Exact: only B moved.

    With A = L Q (LQ) and W^T the right singular vectors of E[B] L, B' = E[B] L W and A' = W^T Q: a
    turn by an orthogonal (r, r) matrix, O((out + in) r^2). Rows of A' are orthonormal, and span
    what those of A did. Privacy noise: linear, and no larger in B'A' than in B'. Local optimisers
    begin afresh there, since the basis is new.

    Attributes:
        every: so many rounds pass between turns; in the others B is averaged.
        randomised: a randomised SVD of the product, from the seed of the round and the site, as
            long as E[B] has full rank; otherwise it knows nothing of the rest of A's rows.

    Raises:
        ValueError: if ``every`` is not positive, if A moved too, or if there are more rows than
            input features.
    """

    needs_product: ClassVar[bool] = False  # with A common, E[B] A is E[BA]
    mixes_ranks: ClassVar[bool] = False  # it reads E[B]
    keeps_basis: ClassVar[bool] = False  # it turns it
    leaves_base: ClassVar[bool] = True
    needs_b_alone: ClassVar[bool] = True  # E[B] A is E[BA] only then

    every: int = 1
    randomised: bool = False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"refactor_every: must be at least 1, not {self.every}")

    def turns(self, round: int) -> bool:
        """After every so many rounds."""
        return (round + 1) % self.every == 0

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """E[B], and where it is time, with A, turned into the SVD of their product."""
        if mean.product or mean.first.only({Role.A}):
            raise ValueError(
                "FedSVD turns a pair of which only B moved; if A is trained too, E[B] E[A] is not "
                "the mean of the products"
            )
        turned: dict[Key, Tensor] = {}
        if self.turns(previous.round):
            for b in mean.first.only({Role.B}):
                a = Key(b.site, Role.A)
                pair = LowRank(mean.first[b], previous.factors[a].double())
                result = self._turned(pair, previous.round, b.site)
                turned |= {b: result.left, a: result.right}
        return Combined(factors=own_type(mean.first.updated(turned), previous))

    def _turned(self, pair: LowRank, round: int, site: str) -> LowRank:
        if self.randomised:
            spectrum = sketched_svd(pair, pair.rank, generator("fedsvd", round, site))
            if len(spectrum.values) == pair.rank:
                return spectrum.heavy_left()
        return _turned(pair)


def _turned(pair: LowRank) -> LowRank:
    """The same product, with orthonormal rows on the right and sorted columns on the left."""
    if pair.rank > pair.shape[1]:
        raise ValueError(
            f"r: {pair.rank} orthonormal rows do not fit into {pair.shape[1]} input features"
        )
    q, r = qr(pair.right.mT)
    left = pair.left @ r.mT
    wh = dense_svd(triangle(left), full=True)[2]
    return LowRank(left @ wh.mT, wh @ q.mT)
