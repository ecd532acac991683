"""Convert patches: a series into a quilt series or a mailbox, and those and plain diffs into a series.

description  the description of a patch: a DEP-3 header, or the text of an email
importers    patches of any form as a series for a release
exporters    a series as a quilt series or a mailbox
"""
