#!/bin/sh
# Puts all that a machine needs for its own agent into one directory, to be carried there:
#   bundle.sh BINARY DIRECTORY
# The program without its debug information, the shared libraries that it links (the C library
# apart, which is the machine's own), a wrapper that finds them, and install.sh with its files.
# The machine must have the release of Debian that the program was built on, or a newer one.
set -eu

if [ $# -ne 2 ]; then
    echo "usage: $0 BINARY DIRECTORY" >&2
    exit 64
fi
binary=$1
target=$2
here=$(dirname "$(readlink -f "$0")")

[ -x "$binary" ] || {
    echo "bundle: there is no program '$binary'" >&2
    exit 66
}
if [ -e "$target" ] && [ -n "$(ls -A "$target")" ]; then
    echo "bundle: '$target' is not empty" >&2
    exit 73
fi
mkdir -p "$target/bin" "$target/lib"

if command -v strip >/dev/null; then
    strip -o "$target/bin/farshore" "$binary"
else
    cp "$binary" "$target/bin/farshore"
fi
chmod 755 "$target/bin/farshore"

missing=$(ldd "$binary" | awk '$3 == "not" { print $1 }')
[ -z "$missing" ] || {
    echo "bundle: libraries that are not here:" "$missing" >&2
    exit 69
}
ldd "$binary" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | while read -r library; do
    case ${library##*/} in
        # One C library and its loader belong together.
        libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | libresolv.so.* | \
            libanl.so.* | libutil.so.* | libnss_* | ld-linux*) ;;
        *) cp -L "$library" "$target/lib/" ;;
    esac
done

cp "$here/wrapper.sh" "$target/farshore"
cp -r "$here/install.sh" "$here/farshore-agent.service" "$here/initramfs" \
    "$here/farshore-save.shutdown" "$target/"
chmod 755 "$target/farshore" "$target/install.sh"
