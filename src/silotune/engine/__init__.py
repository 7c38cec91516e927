"""One federated round as two pure functions, and the loop around them."""

from .client import client_round as client_round
from .client_agreement import ClientAgreement as ClientAgreement
from .client_agreement import NotAgreedError as NotAgreedError
from .client_releases import ACCURACY as ACCURACY
from .evaluation import evaluate as evaluate
from .evaluation import score_at_home as score_at_home
from .experiment import Experiment as Experiment
from .gradient_check import GradientCheckError as GradientCheckError
from .gradient_check import check_gradients as check_gradients
from .loop import Round as Round
from .loop import federate as federate
from .participants import Client as Client
from .participants import LocalTrainer as LocalTrainer
from .participants import Server as Server
from .runtime import Runtime as Runtime
from .server import QuorumError as QuorumError
from .server_ledger import EVERY_CLIENT as EVERY_CLIENT
