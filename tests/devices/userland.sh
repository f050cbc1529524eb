#!/bin/sh
# Unpacks a 64-bit ARM userland into a folder: Debian's CPython 3.11 for arm64 with the TVM runtime at the pinned version,
# started by FOLDER/python3 under qemu-user. Needs apt-get, dpkg-deb and the network, but not root.
#
# userland.sh FOLDER PYTHON CONSTRAINTS      PYTHON has the pip that fetches the wheels; DEBIAN_MIRROR may name a mirror
set -eu
out=$1 python=$2 constraints=$3
. "$(dirname "$0")/private_apt.sh"
part=$out.part
rm -rf "$part"
mkdir -p "$part/site"
part=$(cd "$part" && pwd)
trap 'rm -rf "$part"' EXIT

use_private_apt "$part/apt" arm64 debian
fetch_packages "$part/apt" "$part/root" python3.11-minimal libpython3.11-stdlib libstdc++6
rm -rf "$part/apt"

"$python" -m pip install --quiet --disable-pip-version-check --target "$part/site" \
  --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 --only-binary=:all: \
  --implementation cp --python-version 3.11 -c "$constraints" 'apache-tvm[rpc]'
# A board needs the runtime alone; under emulation the compiler takes seconds to load.
rm -f "$part"/site/tvm/lib/libtvm_compiler.so

# The server starts itself again by sys.executable, which has to be the emulator's command.
cat >"$part/site/sitecustomize.py" <<'END'
import os
import sys

sys.executable = os.environ["USERLAND_PYTHON"]
END
cat >"$part/python3" <<'END'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
emulator=$(command -v qemu-aarch64 || command -v qemu-aarch64-static) || {
  echo "qemu-aarch64 is not installed" >&2
  exit 1
}
exec "$emulator" -L "$here/root" -E PYTHONPATH="$here/site" -E USERLAND_PYTHON="$here/python3" \
  "$here/root/usr/bin/python3.11" "$@"
END
chmod +x "$part/python3"
rm -rf "$out"
mv "$part" "$out"
