"""Where clients run."""

from .in_process import InProcess as InProcess
from .pool import Pool as Pool
from .pool import serve as serve
