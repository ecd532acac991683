"""The torch_memory_saver library: find it, identify it, verify that it is the right build, record a build."""
