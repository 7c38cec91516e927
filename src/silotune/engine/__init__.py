"""One federated round as two pure functions, and the loop around them."""

from .client import client_round as client_round
from .client_agreement import ClientAgreement as ClientAgreement
from .client_agreement import NotAgreedError as NotAgreedError
from .client_releases import ACCURACY as ACCURACY
from .crowd import crowd_round as crowd_round
from .evaluation import answers_to as answers_to
from .evaluation import evaluate as evaluate
from .evaluation import score_at_home as score_at_home
from .experiment import Experiment as Experiment
from .gradient_check import check_gradients as check_gradients
from .gradient_check import is_coarse as is_coarse
from .isolation import Coupling as Coupling
from .loop import Round as Round
from .loop import federate as federate
from .participants import Client as Client
from .participants import LocalTrainer as LocalTrainer
from .participants import Server as Server
from .passes import GradientCheckError as GradientCheckError
from .passes import RecordsMixError as RecordsMixError
from .passes import StateKeptError as StateKeptError
from .runtime import Runtime as Runtime
from .server import QuorumError as QuorumError
from .server_ledger import EVERY_CLIENT as EVERY_CLIENT
