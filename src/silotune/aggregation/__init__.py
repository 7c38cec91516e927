"""Floor 2: server rules. Pure functions of client means."""

from .base import Aggregator as Aggregator
from .base import aggregation_error as aggregation_error
from .mean import Mean as Mean
