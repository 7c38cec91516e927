"""Floor 0: plain linear algebra and seeds. Imports torch and nothing of ours."""

from .lowrank import LowRank as LowRank
from .lowrank import Matrix as Matrix
from .lowrank import add as add
from .lowrank import dense as dense
from .lowrank import norm as norm
from .orthonormal import orthonormal_rows as orthonormal_rows
from .seeds import generator as generator
from .seeds import seed_of as seed_of
