#!/usr/bin/env bash
# Set the environment variables of CANN and NNAL, then run the command.
set -e

# A function, because a sourced script sees the arguments of its caller, and NNAL's script reads them.
load() {
  local script=$1
  shift
  # shellcheck source=/dev/null
  source "$script"
}

for script in /usr/local/Ascend/ascend-toolkit/set_env.sh /usr/local/Ascend/nnal/atb/set_env.sh; do
  if [ ! -r "$script" ]; then
    echo "vimectl: $script is missing: the image's CANN is incomplete" >&2
    exit 3
  fi
  load "$script"
done
exec "$@"
