"""The files of a release, wherever it is: a folder, a wheel, a source archive, or the index that pip uses.

settings    what pip is configured with
web         HTTP as that configuration wants it: proxy, certificates, credentials
index       which files there are of a package
ranged      a file on a server, of which only the parts that are read are fetched
download    a file on a server, fetched whole
archive     named members of a folder, a wheel or a source archive
locate      which of them to read for PACKAGE==VERSION
"""

from vimectl.patching.releases.archive import Release, at
from vimectl.patching.releases.locate import find, parse, versions

__all__ = ["Release", "at", "find", "parse", "versions"]
