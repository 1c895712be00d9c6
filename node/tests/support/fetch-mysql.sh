#!/bin/sh
# Unpacks Debian sid's MySQL server with its libraries into a folder of its own, for the tests of the hands.
# Nothing is installed: private package lists, no maintainer scripts, no chroot. The mirror is the machine's own.
set -eu
dest=${1:-${BATON_MYSQL:-/var/cache/baton-tests/mysql}}
[ ! -x "$dest/usr/sbin/mysqld" ] || exit 0
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/\{0,1\}$') || {
    echo "skipped: no Debian mirror among the apt sources, so no MySQL" >&2
    exit 0
}
part="$dest.part"
rm -rf "$part"
mkdir -p "$part/apt/lists/partial" "$part/apt/cache/archives/partial" "$part/tree"
: > "$part/apt/status"
echo "deb [signed-by=$keys] $mirror sid main" > "$part/apt/sources.list"
apt() {
    apt-get -q -y -o APT::Sandbox::User=root -o Acquire::Languages=none \
        -o Dir::Etc::sourcelist="$part/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State::lists="$part/apt/lists" -o Dir::State::status="$part/apt/status" \
        -o Dir::Cache="$part/apt/cache" "$@"
}
apt update
apt install --download-only --no-install-recommends mysql-server-core
for package in "$part"/apt/cache/archives/*.deb; do
    dpkg -x "$package" "$part/tree"
done
rm -rf "$dest"
mv "$part/tree" "$dest"
rm -rf "$part"
