"""Floor 2: what is hidden, how, and at what price."""

from .accounting import Charge as Charge
from .base import Privacy as Privacy
from .example_level import ExampleLevel as ExampleLevel
from .ledger import LedgerEntry as LedgerEntry
from .ledger import SiloStore as SiloStore
from .ledger import SiloStoreError as SiloStoreError
from .no_privacy import NoPrivacy as NoPrivacy
