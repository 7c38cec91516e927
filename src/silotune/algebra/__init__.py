"""Floor 0: plain linear algebra and seeds. Imports torch and nothing of ours."""

from .decompositions import NumericalError as NumericalError
from .decompositions import dense_svd as dense_svd
from .decompositions import eigh as eigh
from .decompositions import eigvalsh as eigvalsh
from .decompositions import pinv as pinv
from .decompositions import qr as qr
from .decompositions import triangle as triangle
from .decompositions import vector_norm as vector_norm
from .lowrank import LowRank as LowRank
from .lowrank import Matrix as Matrix
from .lowrank import dense as dense
from .lowrank import inner as inner
from .lowrank import norm as norm
from .lowrank import subtract as subtract
from .orthonormal import orthonormal_rows as orthonormal_rows
from .seeds import generator as generator
from .seeds import seed_of as seed_of
from .spectrum import Spectrum as Spectrum
from .spectrum import compress as compress
from .spectrum import sketched_svd as sketched_svd
from .spectrum import svd as svd
from .spectrum import truncate as truncate
from .sums import add as add
