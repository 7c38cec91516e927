"""Keys of parties (Ed25519, RFC 8032), and what is signed with them."""

from .letters import Letter as Letter
from .letters import LetterError as LetterError
from .own import own_key as own_key
from .own import read_key as read_key
from .party import Member as Member
from .signing import as_public_key as as_public_key
from .signing import fingerprint as fingerprint
from .signing import holds as holds
from .signing import public_of as public_of
from .signing import signature_of as signature_of
