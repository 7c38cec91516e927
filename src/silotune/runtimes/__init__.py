"""Where clients run."""

from .courier import Courier as Courier
from .in_process import InProcess as InProcess
from .pool import Pool as Pool
from .remote import Remote as Remote
from .worker import serve as serve
