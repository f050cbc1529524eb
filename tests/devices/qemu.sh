#!/bin/sh
# Unpacks qemu's user emulation of 32- and 64-bit ARM and x86-64 into a folder, with its shared libraries and their loader:
# statically linked emulators load no plugins, and `vitc bench --device qemu` counts instructions by one. Needs apt-get,
# dpkg-deb and the network, but not root. Leaves everything as it is where the emulators on PATH load plugins already.
#
# qemu.sh FOLDER      the emulators are FOLDER/usr/bin/qemu-*; DEBIAN_MIRROR may name a mirror
set -eu
out=$1
emulators="qemu-aarch64 qemu-arm qemu-x86_64"

loads_plugins() {
  for name in $emulators; do
    "$1$name" -help 2>/dev/null | grep -q -e '-plugin' || return 1
  done
}

if loads_plugins ""; then exit 0; fi

. "$(dirname "$0")/private_apt.sh"
part=$out.part
rm -rf "$part"
mkdir -p "$part"
part=$(cd "$part" && pwd)
trap 'rm -rf "$part"' EXIT

# The libraries lie flat in lib. A program that the loader starts goes by the loader's name in /proc and ps, so each
# emulator has a loader of its own name.
arrange() {
  mkdir -p "$part/qemu/usr/bin" "$part/qemu/emulator" "$part/qemu/lib" "$part/qemu/loader"
  find "$part/root" \( -type f -o -type l \) -name '*.so*' ! -path '*/gconv/*' \
    -exec cp -P {} "$part/qemu/lib" \;
  loader=$(ls "$part"/qemu/lib/ld-linux*.so.* | head -n 1)
  for name in $emulators; do
    cp "$part/root/usr/bin/$name" "$part/qemu/emulator/"
    cp -L "$loader" "$part/qemu/loader/$name"
    cat >"$part/qemu/usr/bin/$name" <<'END'
#!/bin/sh
self=$(readlink -f -- "$0")
root=${self%/usr/bin/*} name=${self##*/}
exec "$root/loader/$name" --library-path "$root/lib" "$root/emulator/$name" "$@"
END
    chmod +x "$part/qemu/usr/bin/$name" "$part/qemu/loader/$name"
  done
}

fetch() {
  for sources in debian machine; do
    if [ "$sources" = debian ] && ! [ -r "$KEYRING" ]; then continue; fi
    rm -rf "$part/root" "$part/qemu"
    use_private_apt "$part/apt" "$(dpkg --print-architecture)" "$sources"
    if fetch_packages "$part/apt" "$part/root" qemu-user && arrange &&
      loads_plugins "$part/qemu/usr/bin/"; then return 0; fi
  done
  return 1
}

echo "Fetching qemu-user into $out ..."
if ! command -v apt-get >/dev/null || ! fetch 2>"$part/said"; then
  echo "qemu-user cannot be fetched here, so ARM artefacts run in no emulator, or in one that counts no instructions:" \
    "install a dynamically linked one, on Debian 12 or Ubuntu 24.04 with 'apt install qemu-user'."
  [ ! -s "$part/said" ] || sed -n 's/^/  /; 1,3p' "$part/said"
  exit 0
fi
rm -rf "$out"
mv "$part/qemu" "$out"
