# Installs packages without letting any service of theirs start, now or at the next boot.
# install.sh "PACKAGE ..." "SERVICE ..."
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    # What Debian asks before it starts a service of a new package: 101 forbids it.
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $1
if command -v systemctl >/dev/null; then
    # A machine without a running systemd has nothing to disable.
    systemctl disable $2 || echo "services could not be disabled: $2"
fi
