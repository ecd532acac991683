"""Container images of a stack: planned, with everything they are made of at hand, built, and looked at.

plan        what would be built and from what, every pin with its reason
manifest    the folder that holds all of it, and whether it still does
"""
