"""The folder of a run: the names of its files, and what they say."""

from .facts import SILO_ALONE as SILO_ALONE
from .facts import RunFacts as RunFacts
from .facts import Summary as Summary
from .facts import read_facts as read_facts
from .folder import RoundRecord as RoundRecord
from .folder import RunFolder as RunFolder
from .privacy_statement import PrivacyStatement as PrivacyStatement
from .privacy_statement import SiloPrivacy as SiloPrivacy
from .privacy_statement import read_statement as read_statement
