#!/usr/bin/env bash
# Sources what CANN and NNAL need in the environment, then becomes the command.
set -e

# In a function of its own: a script that is sourced sees the arguments of its caller, and NNAL's reads them.
load() {
  local script=$1
  shift
  # shellcheck source=/dev/null
  source "$script"
}

for script in /usr/local/Ascend/ascend-toolkit/set_env.sh /usr/local/Ascend/nnal/atb/set_env.sh; do
  if [ ! -r "$script" ]; then
    echo "vimectl: $script is missing: the image has no whole CANN" >&2
    exit 3
  fi
  load "$script"
done
exec "$@"
