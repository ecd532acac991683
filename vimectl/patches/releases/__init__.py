"""Find and fetch the files of PACKAGE==VERSION from pip's sources: its cache, folders, and indexes.

pip_config   the configuration of pip
web          HTTP with that configuration: proxy, certificates, credentials
index        the files of a package, and the last answer of its index
download     download a file, as a whole or only the parts that are read
finder       the file to read for PACKAGE==VERSION
"""
