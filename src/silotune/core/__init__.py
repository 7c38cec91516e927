"""Floor 1: the nouns. Frozen values that travel between client and server."""

from .codec import CorruptPayload as CorruptPayload
from .codec import pack as pack
from .codec import unpack as unpack
from .examples import Batch as Batch
from .examples import Examples as Examples
from .factors import Factors as Factors
from .factors import Key as Key
from .factors import Role as Role
from .messages import ClientId as ClientId
from .messages import GlobalState as GlobalState
from .messages import Result as Result
from .messages import Seeded as Seeded
from .messages import Task as Task
from .meters import Meter as Meter
from .meters import Meters as Meters
from .meters import pool as pool
from .plan import Phase as Phase
from .plan import Plan as Plan
from .sink import GradientSink as GradientSink
from .site import Site as Site
from .statistics import Moments as Moments
from .statistics import Statistics as Statistics
from .statistics import lift as lift
