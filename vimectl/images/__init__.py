"""Container images of a stack: planned, with everything they are made of at hand, built, and looked at.

plan        what would be built and from what, every pin with its reason
manifest    the folder that holds all of it, and whether it still does
vendor      fills that folder
git_source  a repository at one commit as an archive
builder     docker, podman and buildah behind one protocol
build       builds the image from that folder
inside      what the Dockerfiles run in the image while it is built
verify      what an image is, as the doctor, the patches and the memory saver say
tree        the digest of a file tree
sbom        what is in an image
provenance  how an image came about
run_args    how a container of an image is started on this host
"""
