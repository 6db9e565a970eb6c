"""libguestfs in tests: a kernel for its machine where this host has none, and images made with it."""
import os
import pathlib
import shutil
import subprocess
import unittest

CACHE = pathlib.Path(os.environ.get("FARSHORE_CACHE") or pathlib.Path.home() / ".cache/farshore") / "guestfs"


def _fetch_kernel():
    """Debian's kernel, unpacked and not installed: nothing on this host changes but the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if not list(CACHE.glob("boot/vmlinuz-*")):
        depends = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], check=True, capture_output=True,
                                 text=True).stdout
        package = next(line.split()[1] for line in depends.splitlines() if "Depends: linux-image" in line)
        subprocess.run(["apt-get", "download", package], cwd=CACHE, check=True, capture_output=True)
        subprocess.run(["dpkg", "-x", next(CACHE.glob(f"{package}_*.deb")), CACHE], check=True)
        version = next((CACHE / "lib/modules").iterdir()).name
        subprocess.run(["depmod", "-b", CACHE, version], check=True)
    return next((CACHE / "lib/modules").iterdir()).name


def environment():
    """What libguestfs needs here; skips the test where it cannot run."""
    if not shutil.which("guestfish"):
        raise unittest.SkipTest("no guestfish (packages libguestfs-dev, guestfish)")
    found = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
    if not list(pathlib.Path("/boot").glob("vmlinuz-*")):
        version = _fetch_kernel()
        # supermin wants the directory to be there, whatever is in it.
        pathlib.Path("/lib/modules").mkdir(exist_ok=True)
        found |= {"SUPERMIN_KERNEL": str(CACHE / f"boot/vmlinuz-{version}"),
                  "SUPERMIN_MODULES": str(CACHE / f"lib/modules/{version}"),
                  "SUPERMIN_KERNEL_VERSION": version}
    return found


def guestfish(script, variables):
    """Runs guestfish's commands; `script` is ours, nothing of it comes from elsewhere."""
    done = subprocess.run(["guestfish"], input=script, capture_output=True, text=True, timeout=600,
                          env={**os.environ, **variables}, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"guestfish: {done.stderr[-3000:]}")
    return done.stdout
