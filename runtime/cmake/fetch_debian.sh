#!/bin/sh
# Downloads one file of a Debian release into a folder, through the mirror that this system is already configured with.
# Nothing is installed and no root is needed: apt runs with package lists and a cache of its own inside the folder. Binary
# packages are those for amd64, on every machine: what is wanted of them are headers.
#
#   fetch_debian.sh source|binary RELEASE PACKAGE FILE SHA256 FOLDER
#
# FILE is the name of the file that is wanted out of the download, SHA256 its pinned digest.
set -eu
kind=$1 release=$2 package=$3 file=$4 digest=$5 folder=$6

matches() { [ -f "$1" ] && echo "$digest  $1" | sha256sum --check --status; }

mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
cd "$folder"
if matches "$file"; then exit 0; fi

command -v apt-get > /dev/null || { echo "apt-get is not installed" >&2; exit 1; }
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(CODENAME)' 'Created-By: Packages' |
  awk '$2 == "Debian" && $3 !~ /-/ { print $1; exit }')
[ -n "$mirror" ] || { echo "apt knows no Debian mirror (run apt-get update once)" >&2; exit 1; }

case $kind in
  source) entry=deb-src ;;
  binary) entry=deb ;;
  *) echo "expected source or binary, got $kind" >&2; exit 1 ;;
esac
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "$entry [signed-by=$keyring] $mirror $release main" > sources.list

apt() {
  apt-get -qq -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache" -o Debug::NoLocking=1 \
    -o APT::Sandbox::User="$(id -un)" -o APT::Architecture=amd64 -o APT::Architectures=amd64 "$@"
}
apt update
if [ "$kind" = source ]; then apt source --download-only "$package"; else apt download "$package"; fi
matches "$file" || { echo "$file is missing or its SHA-256 is not $digest" >&2; exit 1; }
