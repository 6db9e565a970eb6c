#!/bin/sh
# Installs Farshore's agent in this Debian machine from the directory that bundle.sh made, or
# removes it. As root:
#   install.sh --appliance HOST:PORT --ca FILE --token-file FILE [--name NAME] [--no-early]
#   install.sh --uninstall [--purge]
# --no-early: no part in the initramfs; writes between the start of the kernel and that of the agent
# are then found by comparing. --purge: the agent's identity and data go as well.
# Running it again over an installed agent upgrades it; capture goes on meanwhile.
set -eu

# What is installed, and where. Other places only for tests.
root=${FARSHORE_INSTALL_ROOT:-}
program=$root/usr/lib/farshore
wrapper=$root/usr/bin/farshore
settings=$root/etc/farshore
unit=$root/lib/systemd/system/farshore-agent.service
early_units=$root/lib/systemd/system/farshore-early
shutdown=$root/lib/systemd/system-shutdown/farshore-save.shutdown
initramfs=$root/etc/initramfs-tools
data=$root/var/lib/farshore-agent

say() { echo "install: $*"; }
die() {
    echo "install: $1" >&2
    exit "${2:-1}"
}
usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 64
}

systemd() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

rebuild_initramfs() {
    if [ -z "$root" ] && command -v update-initramfs >/dev/null; then
        say "rebuilding the initramfs"
        update-initramfs -u
    fi
}

uninstall() {
    if systemd; then
        systemctl disable --now farshore-early.path farshore-agent.service 2>/dev/null || true
        # The agent's end leaves capture running; this is the end of protection itself.
        if [ -x "$wrapper" ] && ! "$wrapper" capture stop; then
            echo "install: capture could not be ended (the cause is above); the removal goes on. What is" \
                "left of it in the kernel (/sys/fs/bpf/farshore-*) goes at the next start of this machine" >&2
        fi
    fi
    early=no
    if [ -e "$settings/early.json" ] && [ -e "$initramfs/hooks/farshore" ]; then early=yes; fi
    rm -f "$initramfs/hooks/farshore" "$initramfs/scripts/init-premount/farshore" "$unit" \
        "$early_units.path" "$early_units.service" "$shutdown" "$settings/early.json"
    # Nobody else's farshore is removed: this one leads to our program.
    if [ "$(readlink "$wrapper" 2>/dev/null)" = /usr/lib/farshore/farshore ]; then rm -f "$wrapper"; fi
    rm -rf "$program"
    if systemd; then systemctl daemon-reload; fi
    if [ "$early" = yes ]; then rebuild_initramfs; fi
    if [ "$purge" = yes ]; then
        rm -rf "$data"
        rm -f "$settings/agent.env" "$settings/ca.crt" "$settings/agent.token"
        rmdir "$settings" 2>/dev/null || true
        say "removed, with its identity and data"
    else
        say "removed; $settings and $data are kept (--purge removes them)"
    fi
}

# One word for agent.env, where systemd reads it.
check_word() {
    case $2 in
        '' | *[!A-Za-z0-9._:/\[\]-]*) die "$1 '$2' has other characters than letters, digits and ._:/[]-" 64 ;;
    esac
}

install_agent() {
    if [ ! -x "$here/bin/farshore" ] || [ ! -d "$here/lib" ]; then
        die "run it from the directory that bundle.sh made: there is no program beside it" 66
    fi
    if [ ! -e "$settings/agent.env" ]; then
        for given in "$appliance" "$ca" "$token"; do
            [ -n "$given" ] || die "a first installation needs --appliance, --ca and --token-file" 64
        done
    fi
    if [ -n "$appliance" ]; then
        if [ -z "$name" ]; then name=$(hostname); fi
        check_word --appliance "$appliance"
        check_word --name "$name"
    fi
    if [ -e "$wrapper" ] && [ "$(readlink "$wrapper")" != /usr/lib/farshore/farshore ]; then
        die "$wrapper is somebody else's: remove it first" 73
    fi
    for file in "$ca" "$token"; do
        [ -z "$file" ] || [ -r "$file" ] || die "cannot read '$file'" 66
    done
    [ -e /sys/kernel/btf/vmlinux ] || [ -n "$root" ] ||
        die "this kernel has no BTF (/sys/kernel/btf/vmlinux): capture needs Linux 5.8 or newer with CONFIG_DEBUG_INFO_BTF" 69
    # What runs keeps its old file: a new one takes its place, it is never written over.
    say "program into $program"
    mkdir -p "$program/bin" "$program/lib" "$(dirname "$wrapper")" "$settings" "$(dirname "$unit")" \
        "$(dirname "$shutdown")"
    for file in "$here"/bin/farshore "$here"/lib/*; do
        place=$program/${file#"$here/"}
        cp "$file" "$place.new"
        mv -f "$place.new" "$place"
    done
    cp "$here/farshore" "$program/farshore"
    cp "$here/install.sh" "$program/install.sh"
    chmod 755 "$program/farshore" "$program/install.sh" "$program/bin/farshore"
    ln -sfn /usr/lib/farshore/farshore "$wrapper"

    chmod 700 "$settings"
    if [ -n "$ca" ]; then install -m 644 "$ca" "$settings/ca.crt"; fi
    if [ -n "$token" ]; then install -m 600 "$token" "$settings/agent.token"; fi
    if [ -n "$appliance" ]; then
        (
            umask 077
            printf '%s\n' "# Of farshore-agent.service; made by install.sh." \
                "FARSHORE_APPLIANCE=$appliance" "FARSHORE_NAME=$name" \
                "# Further options of 'farshore agent serve'." "FARSHORE_OPTIONS=" >"$settings/agent.env"
        )
    fi

    install -m 644 "$here/farshore-agent.service" "$unit"
    install -m 755 "$here/farshore-save.shutdown" "$shutdown"
    if [ "$early" = yes ] && [ -d "$initramfs" ]; then
        mkdir -p "$initramfs/hooks" "$initramfs/scripts/init-premount"
        install -m 755 "$here/initramfs/hook" "$initramfs/hooks/farshore"
        install -m 755 "$here/initramfs/init-premount" "$initramfs/scripts/init-premount/farshore"
        install -m 644 "$here/initramfs/farshore-early.path" "$early_units.path"
        install -m 644 "$here/initramfs/farshore-early.service" "$early_units.service"
        # Otherwise there is nothing to capture yet: farshore-early.path sees when that changes.
        if [ -e "$settings/early.json" ]; then rebuild_initramfs; fi
    elif [ "$early" = yes ]; then
        say "no initramfs-tools here: capture starts with the agent, not with the kernel"
    fi
    if systemd; then
        systemctl daemon-reload
        systemctl enable farshore-agent.service
        if [ -e "$early_units.path" ]; then systemctl enable --now farshore-early.path; fi
        systemctl restart farshore-agent.service
        say "farshore-agent.service runs; 'farshore agents' at the vault lists it"
    fi
}

here=$(dirname "$(readlink -f "$0")")
appliance='' ca='' token='' name='' early=yes purge=no action=install_agent
while [ $# -gt 0 ]; do
    case $1 in
        --appliance | --ca | --token-file | --name)
            [ $# -ge 2 ] || usage
            case $1 in
                --appliance) appliance=$2 ;;
                --ca) ca=$2 ;;
                --token-file) token=$2 ;;
                --name) name=$2 ;;
            esac
            shift
            ;;
        --no-early) early=no ;;
        --uninstall) action=uninstall ;;
        --purge) purge=yes ;;
        *) usage ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || die "needs root" 77
$action
