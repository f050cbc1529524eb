# Sourced: apt without root, on lists and a package state of its own, so that what it fetches includes every dependency.
#
# use_private_apt FOLDER ARCHITECTURE SOURCES    SOURCES is `debian`, or `machine` for the sources that this machine has
# fetch_packages FOLDER ROOT PACKAGE...          unpacks the packages and what they depend on into ROOT

# A fixed suite: the wheels of the userland are for its Python, and later ones link qemu-user statically.
SUITE=bookworm
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$KEYRING" ] || KEYRING=${KEYRING%.gpg}.pgp

use_private_apt() {
  rm -rf "$1"
  mkdir -p "$1/lists/partial" "$1/archives/partial"
  : >"$1/status"
  cat >"$1/apt.conf" <<END
Dir::State "$1";
Dir::State::status "$1/status";
Dir::Cache "$1";
APT::Architecture "$2";
APT::Architectures { "$2"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
END
  if [ "$3" = debian ]; then
    echo "deb [signed-by=$KEYRING] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} $SUITE main" \
      >"$1/sources.list"
    cat >>"$1/apt.conf" <<END
Dir::Etc::sourcelist "$1/sources.list";
Dir::Etc::sourceparts "-";
END
  fi
  export APT_CONFIG="$1/apt.conf"
}

fetch_packages() {
  state=$1 root=$2
  shift 2
  apt-get -qq update &&
    apt-get -qq -o Debug::NoLocking=1 install --download-only -y --no-install-recommends "$@" ||
    return 1
  for package in "$state"/archives/*.deb; do
    dpkg-deb -x "$package" "$root" || return 1
  done
}
