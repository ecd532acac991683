"""The files of PACKAGE==VERSION from where pip would get it: its cache, folders, indexes.

settings    what pip is configured with
web         HTTP as that configuration wants it: proxy, certificates, credentials
index       which files there are of a package
ranged      a file on a server, of which only the parts that are read are fetched
download    a file on a server, fetched whole
listings    what an index last said
locate      which of them to read for PACKAGE==VERSION
"""

from vimectl.patches.releases.finder import find, parse, versions

__all__ = ["find", "parse", "versions"]
