"""Fetch releases: files of PACKAGE==VERSION from pip's sources (folders, indexes), and commits by git.

pip_config      the configuration of pip
web             HTTP with that configuration: proxy, certificates, credentials
index           the files of a package, and the last answer of its index
download        download a file, as a whole or only the parts that are read
git_source      archive a repository at one commit
commit_archive  check such an archive by its commit
"""
