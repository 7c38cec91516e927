"""What all parties of a federation agree on, and what follows from it. No record is read here."""

from .agreement import Agreement as Agreement
from .build import BuiltModel as BuiltModel
from .machine import Machine as Machine
from .opening import open_model as open_model
from .opening import open_unproved as open_unproved
from .terms import Terms as Terms
