"""Server rules. Pure functions of client means."""

from .base import Aggregator as Aggregator
from .base import Combined as Combined
from .base import aggregation_error as aggregation_error
from .fedask import Sketch as Sketch
from .fedex_lora import Residual as Residual
from .fedopt import ServerAdam as ServerAdam
from .fedopt import ServerMomentum as ServerMomentum
from .fedopt import ServerOptimizer as ServerOptimizer
from .fedopt import ServerStep as ServerStep
from .fedopt import ServerYogi as ServerYogi
from .fedsvd import Refactor as Refactor
from .flexlora import Truncate as Truncate
from .flora import Fold as Fold
from .hetlora import Padded as Padded
from .lora_fair import FairCosine as FairCosine
from .lora_fair_ridge import FairRidge as FairRidge
from .mean import Mean as Mean
