"""Comparison: a grid of runs, done where missing, and what they say of each other."""

from .complete import Progress as Progress
from .grid import Grid as Grid
from .grid import read_grid as read_grid
from .results import Compared as Compared
from .results import compare as compare
from .results import compared as compared
from .results import compared_runs as compared_runs
from .results import planned as planned
