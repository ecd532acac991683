"""Container images of a stack.

plan         every source of an image with its pin and the reason
manifest     the folder that holds these sources, with their digests
vendor       fill that folder
git_source   archive a repository at one commit
builder      docker, podman and buildah
build        build the image from the folder
build_steps  what the Dockerfiles run during the build
verify       check a built image with the doctor, the patches and the memory saver
tree_digest  the digest of a file tree
sbom         the software bill of materials
provenance   the SLSA provenance
run_args     the options to run a container on this host
"""
