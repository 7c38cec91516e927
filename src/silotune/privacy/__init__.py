"""Floor 2: what is hidden, how, and at what price."""

from .base import Draws as Draws
from .base import Past as Past
from .base import Privacy as Privacy
from .central import Central as Central
from .central import Everyone as Everyone
from .charges import AnyCharge as AnyCharge
from .charges import Charge as Charge
from .charges import CorrelatedCharge as CorrelatedCharge
from .charges import Relation as Relation
from .charges import TruncatedCharge as TruncatedCharge
from .client_level import ClientLevel as ClientLevel
from .example_level import ExampleLevel as ExampleLevel
from .ledger import LedgerEntry as LedgerEntry
from .ledger import SiloStoreError as SiloStoreError
from .no_privacy import NoPrivacy as NoPrivacy
from .noise import Correlated as Correlated
from .noise import Discrete as Discrete
from .noise import Gaussian as Gaussian
from .sampling import Poisson as Poisson
from .sampling import Rotation as Rotation
from .sampling import TruncatedPoisson as TruncatedPoisson
from .store import SiloStore as SiloStore
