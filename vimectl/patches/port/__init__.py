"""Port a series to another release: three-way merges that leave out what upstream already has.

command           the port command: open both releases, write the new series or the conflicts
rebase            the patches of a series, one on top of the other
port_file         one patch of one file
changes           single changes, and which of them the new release has already or made obsolete
auto_resolve      conflict markers, and imports that both versions add
rename_detection  files that the new release has under another name
conflict_folder   conflicts on disk, and the user's resolutions
new_stack         the stack of a new release, with its series
"""
