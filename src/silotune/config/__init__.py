"""The file format. YAML and overrides in, a checked ``Config`` out."""

from .build import build as build
from .build import settle as settle
from .errors import ConfigError as ConfigError
from .fields import in_keys as in_keys
from .fields import naming_keys as naming_keys
from .load import Written as Written
from .load import dropped as dropped
from .load import load_config as load_config
from .load import read_written as read_written
from .notices import notices as notices
from .own_method import import_method as import_method
from .own_method import is_path as is_path
from .resolve import differences as differences
from .resolve import digest as digest
from .resolve import dump as dump
from .schema import Config as Config
