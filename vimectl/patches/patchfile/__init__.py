"""Read patch files, strictly and with the line of every defect, and apply them as git does."""

from vimectl.patches.patchfile.model import Action, BinaryData, Defect, FileDiff, Hunk, PatchFile
from vimectl.patches.patchfile.reader import load, parse

__all__ = ["Action", "BinaryData", "Defect", "FileDiff", "Hunk", "PatchFile", "load", "parse"]
