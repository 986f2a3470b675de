#!/bin/sh
# Unpacks Debian's Python for 64-bit ARM, with all it needs, into a folder for qemu's user mode. Nothing is installed and
# no root is needed: apt runs with package lists, a cache and an empty list of installed packages of its own.
#
#   aarch64_root.sh FOLDER
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)
[ ! -e "$folder/root/usr/bin/python3" ] || exit 0
mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/root.part"
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(CODENAME)' 'Created-By: Packages' |
  awk '$2 == "Debian" && $3 !~ /-/ { print $1; exit }')
[ -n "$mirror" ] || { echo "apt knows no Debian mirror (run apt-get update once)" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" > "$folder/sources.list"
: > "$folder/status"
apt() {
  apt-get -qq -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$folder/lists" -o Dir::State::status="$folder/status" -o Dir::Cache="$folder/cache" \
    -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" -o APT::Architecture=arm64 -o APT::Architectures=arm64 "$@"
}
apt update
apt install --download-only --yes --no-install-recommends python3 libstdc++6
for package in "$folder"/cache/archives/*.deb; do dpkg-deb -x "$package" "$folder/root.part"; done
mv "$folder/root.part" "$folder/root"
