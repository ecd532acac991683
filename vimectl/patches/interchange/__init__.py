"""Convert patches: a series into a quilt series or a mailbox, and patches of any form into a series.

description  the description of a patch: a DEP-3 header, or the text of an email
importers    patches of any form as a series for a release or a commit
series_conf  a list of patches for work trees as a project file with a series for each
exporters    a series as a quilt series or a mailbox
"""
