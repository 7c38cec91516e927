"""A site: whose records they are, what its owner allows, and what it has done."""

from .own import OwnSite as OwnSite
from .policy import Policy as Policy
from .policy import PrivacyPolicy as PrivacyPolicy
from .refusal import refusal as refusal
