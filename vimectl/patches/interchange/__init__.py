"""Patches of other forms: a series as a quilt series or a mailbox, and those and plain diffs as a series.

message    what a patch says of itself: DEP-3 fields, a mail
incoming   the patches in a folder, a mailbox or a file
outgoing   a series as a quilt series or a mailbox
taking     patches of any form as a series for a release
"""

from vimectl.patches.interchange.exporters import FORMATS, Format, export
from vimectl.patches.interchange.import_ import Taken, take

__all__ = ["FORMATS", "Format", "Taken", "export", "take"]
