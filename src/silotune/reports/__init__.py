"""Floor 5: what is left of a run: its record, its page, its model card, its tables.

Here stands what every runner needs. What draws and prints is in ``html``, ``card``, ``plots``,
``tables`` and ``tensorboard``, to be imported where it is used.
"""

from .facts import SILO_ALONE as SILO_ALONE
from .facts import PrivacyStatement as PrivacyStatement
from .facts import RunFacts as RunFacts
from .facts import SiloPrivacy as SiloPrivacy
from .facts import Summary as Summary
from .facts import read_facts as read_facts
from .facts import read_statement as read_statement
from .outcome import Outcome as Outcome
from .outcome import SiloOutcome as SiloOutcome
from .outcome import outcome as outcome
from .outcome import silo_outcomes as silo_outcomes
from .record import RoundRecord as RoundRecord
from .record import RunFolder as RunFolder
from .units import human_bytes as human_bytes
