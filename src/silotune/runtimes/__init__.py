"""Where clients run."""

from .courier import Courier as Courier
from .crowds import Crowds as Crowds
from .folder import FolderCourier as FolderCourier
from .folder import answer_folder as answer_folder
from .in_process import InProcess as InProcess
from .pool import Pool as Pool
from .remote import Remote as Remote
from .remote import Stragglers as Stragglers
from .worker import frames as frames
from .worker import in_words as in_words
from .worker import serve as serve
from .worker import serve_orders as serve_orders
