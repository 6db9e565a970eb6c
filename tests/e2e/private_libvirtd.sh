#!/bin/bash
# A real libvirtd of the system kind for one test: with directories, processes and networks of its
# own, so that neither a libvirtd of this machine nor another test's meets it. What it was told is
# kept in DIRECTORY over its end, as a host's is over a power cut; everything that it started ends
# with this script (kill -9 is enough). A libvirtd that is killed alone is started anew, as systemd
# would do it; its machines run on.
#
#   private_libvirtd.sh DIRECTORY [--this-network] [LINE OF libvirtd.conf]…
#
# DIRECTORY must let everybody through. The socket: DIRECTORY/sock/libvirt-sock; libvirtd's pid, as
# this machine sees it: found by `pgrep -f DIRECTORY/libvirtd.conf`. --this-network: in the
# caller's network namespace instead of one of its own.
set -eu

directory=$1
shift
if [ "${FARSHORE_INSIDE:-}" != 1 ]; then
    own=(--net)
    if [ "${1:-}" = --this-network ]; then
        own=()
        shift
    fi
    mkdir -p "$directory"/{sock,etc/qemu/networks,lib,log,cache}
    chmod 0711 "$directory" "$directory/sock" "$directory/lib"
    cat >"$directory/qemu.conf" <<'END'
security_driver = "none"
stdio_handler = "file"
END
    [ ! -e "$directory/qemu-more.conf" ] || cat "$directory/qemu-more.conf" >>"$directory/qemu.conf"
    {
        echo "unix_sock_dir = \"$directory/sock\""
        echo 'auth_unix_rw = "none"'
        echo 'unix_sock_rw_perms = "0700"'
        echo 'log_outputs = "3:stderr"'
        for line in "$@"; do echo "$line"; done
    } >"$directory/libvirtd.conf"
    export FARSHORE_INSIDE=1
    exec unshare --mount --pid --fork --kill-child --mount-proc "${own[@]}" "$0" "$directory"
fi

mount --make-rprivate /
mkdir -p /run/libvirt /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
mount -t tmpfs -o mode=755 none /run/libvirt
# Locks of consoles name processes, whose numbers are others outside.
mount -t tmpfs -o mode=1777 none "$(realpath /var/lock)"
mount --bind "$directory/etc" /etc/libvirt
mount --bind "$directory/lib" /var/lib/libvirt
mount --bind "$directory/log" /var/log/libvirt
mount --bind "$directory/cache" /var/cache/libvirt
cp "$directory/qemu.conf" /etc/libvirt/qemu.conf
ip link set lo up
# Where libvirt itself looks for it, by SSH.
ln -s "$directory/sock/libvirt-sock" /run/libvirt/libvirt-sock
# An sshd of its own, for qemu+ssh: DIRECTORY/sshd_config.
if [ -e "$directory/sshd_config" ]; then
    mkdir -p /run/sshd
    /usr/sbin/sshd -f "$directory/sshd_config"
fi
while true; do
    rm -f "$directory"/sock/*
    listen=()
    if grep -q '^listen_tls = 1' "$directory/libvirtd.conf"; then listen=(--listen); fi
    libvirtd --pid-file "/run/libvirt/own.pid" --config "$directory/libvirtd.conf" "${listen[@]}" ||
        echo "libvirtd ended with $?, and is started anew" >&2
    sleep 0.1
done
