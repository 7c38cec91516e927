"""Plain linear algebra. Imports torch and nothing of ours."""

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
from .sums import add as add
from .svd import Spectrum as Spectrum
from .svd import compress as compress
from .svd import sketched_svd as sketched_svd
from .svd import svd as svd
from .svd import truncate as truncate
