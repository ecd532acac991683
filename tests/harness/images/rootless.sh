#!/bin/bash
# Run a command as another user, who has an account, a home and ranges of ids as `useradd` makes them:
# rootless.sh HOME UID PYTHON_PREFIX COMMAND... Root starts it in a private mount namespace.
set -e
home=$1 uid=$2 prefix=$3
shift 3
mkdir -p "$home/etc" "$home/run"
for file in passwd group subuid subgid; do
  cat "/etc/$file" > "$home/etc/$file"
done
echo "tester:x:$uid:$uid::$home:/bin/sh" >> "$home/etc/passwd"
echo "tester:x:$uid:" >> "$home/etc/group"
for file in subuid subgid; do echo "tester:200000:65536" >> "$home/etc/$file"; done
for file in passwd group subuid subgid; do mount --bind "$home/etc/$file" "/etc/$file"; done
if [[ $prefix == /root/* ]]; then # root's home is closed to others, and the interpreter is in it
  mkdir -p "$home/python"
  mount --bind "$prefix" "$home/python"
  mount -t tmpfs -o mode=755 tmpfs /root
  mkdir -p "$prefix"
  mount --bind "$home/python" "$prefix"
fi
chown -R "$uid:$uid" "$home/run"
chown "$uid:$uid" "$home"
exec setpriv --reuid="$uid" --regid="$uid" --clear-groups -- env -i HOME="$home" USER=tester PATH="$PATH" \
  XDG_RUNTIME_DIR="$home/run" TMPDIR="$home/tmp" PYTHONPATH="$PYTHONPATH" SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" "$@"
