"""Floor 4: one federated round as two pure functions, and the loop around them."""

from .accounts import EVERY_CLIENT as EVERY_CLIENT
from .accounts import Server as Server
from .client import Bench as Bench
from .client import Silo as Silo
from .client import client_round as client_round
from .coverage import CoverageError as CoverageError
from .coverage import check_coverage as check_coverage
from .evaluate import evaluate as evaluate
from .evaluate import score_at_home as score_at_home
from .experiment import Experiment as Experiment
from .loop import Round as Round
from .loop import federate as federate
from .releases import ACCURACY as ACCURACY
from .runtime import Runtime as Runtime
from .server import QuorumError as QuorumError
