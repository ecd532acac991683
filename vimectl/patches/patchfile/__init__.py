"""Read patch files, strictly and with the line of every defect, and apply them with git.

sources   the patches in a mailbox or folder
quilt     the patches in a quilt series
header    the names, modes and blob ids of one diff
hunks     its hunks, read by unidiff
binary    its binary data
links     symbolic links, followed through those that a series makes
names     file names: decoding, and which ones are allowed
reader    the whole file, with its defects
rules     checks of the content; reading a file for use
apply     git apply, on files that are only read
"""
