"""Floor 2: server rules. Pure functions of client means."""

from .base import Aggregator as Aggregator
from .base import Combined as Combined
from .base import aggregation_error as aggregation_error
from .exact import Fold as Fold
from .exact import Residual as Residual
from .fair import Fair as Fair
from .fair import FairCosine as FairCosine
from .fedsvd import Refactor as Refactor
from .flexlora import Truncate as Truncate
from .mean import Mean as Mean
from .server_optimizer import ServerAdam as ServerAdam
from .server_optimizer import ServerMomentum as ServerMomentum
from .server_optimizer import ServerOptimizer as ServerOptimizer
from .server_optimizer import ServerStep as ServerStep
from .server_optimizer import ServerYogi as ServerYogi
