"""The folder of a run: the names of its files, and what they say."""

from .facts import SILO_ALONE as SILO_ALONE
from .facts import PrivacyStatement as PrivacyStatement
from .facts import RunFacts as RunFacts
from .facts import SiloPrivacy as SiloPrivacy
from .facts import Summary as Summary
from .facts import read_facts as read_facts
from .facts import read_statement as read_statement
from .folder import RoundRecord as RoundRecord
from .folder import RunFolder as RunFolder
