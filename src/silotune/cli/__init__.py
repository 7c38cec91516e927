"""The command line. Whatever takes a second to import is imported inside its verb."""

from .app import app as app
from .app import main as main
