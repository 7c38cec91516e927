"""What is left of a run: its record, its page, its model card, its tables.

Here stands what every runner needs. What draws and prints is in ``page``, ``model_card``,
``plots``, ``tables`` and ``trackers``, to be imported where it is used.
"""

from .totals import Outcome as Outcome
from .totals import SiloOutcome as SiloOutcome
from .totals import outcome as outcome
from .totals import silo_outcomes as silo_outcomes
