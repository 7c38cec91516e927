"""The demo's data: synthetic triage notes, and the words that they are made of."""

from .notes import CLINICS as CLINICS
from .notes import TRIAGE_LABELS as TRIAGE_LABELS
from .notes import triage as triage
