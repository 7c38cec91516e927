"""Data that are made up: triage notes, letters, and the words that they are made of."""

from .letters import MARKS as MARKS
from .letters import letters as letters
from .notes import CLINICS as CLINICS
from .notes import TRIAGE_LABELS as TRIAGE_LABELS
from .notes import triage as triage
