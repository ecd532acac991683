"""Check that this machine can run a recipe, and name the command that fixes each problem."""
