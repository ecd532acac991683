"""Convert patches: a series into a quilt series or a mailbox, and those and plain diffs into a series.

message      the description of a patch: DEP-3 fields, an email
importers    patches of any form as a series for a release
exporters    a series as a quilt series or a mailbox
"""
