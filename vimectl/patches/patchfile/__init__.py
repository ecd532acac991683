"""Read patch files, strictly and with the line of every defect, and apply them with git.

cursor    the lines of the file
header    the names, modes and blob ids of one diff
body      its hunks or binary data
names     file names: decoding, and which ones are allowed
reader    the whole file, with its defects
rules     checks of the content; reading a file for use
apply     git apply, on files that are only read
"""
