"""Container images of a stack.

plan            every source of an image with its pin and the reason
manifest        the folder that holds these sources, with their digests
source_folder   check that folder, and copy what was checked
vendor          fill that folder
builders        the command lines of docker, podman and buildah
build_failure   explain a failed build from the builder's output
saved_image     read an image: its configuration, its files and their digest
build           build the image from the folder
build_steps     what the Dockerfiles run during the build
verify          check a built image with the doctor, the patches and the memory saver
sbom            the software bill of materials
provenance      the SLSA provenance
run_args        the options to run a container on this host
"""
