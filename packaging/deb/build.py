#!/usr/bin/env python3
"""Makes the Debian packages: build.py BUILD_DIRECTORY OUTPUT_DIRECTORY. `./run package` calls it.

  farshore            the program, its nbdkit plugin, its NBD front, documentation
  farshore-vault      unit, configuration and user of the vault
  farshore-appliance  the same of the appliance
  farshore-agent      the same of the agent, and its parts for the initramfs and the shutdown

With Debian's own tools: dpkg-shlibdeps says which libraries the program needs, dpkg-deb packs. From the
same programs and the same commit come the same bytes: owners, times and order are fixed. The version is
that of CMakeLists.txt and the commit; FARSHORE_PACKAGE_VERSION names another one, for tests.
Prints the paths of the packages."""
import gzip
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
MAINTAINER = "The Farshore developers <farshore@localhost>"
PARTS = ("vault", "appliance", "agent")


def output(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, text=True, stdout=subprocess.PIPE,
                          **options).stdout.strip()


def git(*arguments):
    """What git says; empty where there is no git or no repository."""
    try:
        return output("git", "-C", ROOT, *arguments, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return ""


def version():
    given = os.environ.get("FARSHORE_PACKAGE_VERSION")
    if given:
        return given
    base = re.search(r"project\(farshore VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
    if git("tag", "--points-at", "HEAD", "--list", f"v{base}"):
        return base
    commit = git("log", "-1", "--date=format-local:%Y%m%d%H%M%S", "--format=%cd.%h")
    return f"{base}+git{commit}" if commit else base


def control_of(name):
    """The package's paragraph of the file `control`, and its scripts."""
    for paragraph in (HERE / "control").read_text().split("\n\n"):
        if paragraph.startswith(f"Package: {name}\n"):
            return paragraph.strip()
    raise SystemExit(f"package: {HERE / 'control'} has no {name}")


def install(tree, source, place, mode=0o644):
    target = tree / place
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def gather_program(tree, build):
    for source, place in ((build / "bin/farshore", "usr/lib/farshore/bin/farshore"),
                          (build / "bin/farshore-nbd-front", "usr/lib/farshore/bin/farshore-nbd-front"),
                          (build / "lib/nbdkit-farshore-plugin.so",
                           "usr/lib/farshore/lib/nbdkit-farshore-plugin.so")):
        target = tree / place
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["strip", "--strip-unneeded", "--remove-section=.comment", "-o", target, source],
                       check=True)
        target.chmod(0o755 if "bin/" in place else 0o644)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/farshore").symlink_to("../lib/farshore/bin/farshore")
    doc = tree / "usr/share/doc/farshore"
    for folder in ("operations", "format", "design"):
        for page in sorted((ROOT / "docs" / folder).glob("*.md")):
            install(tree, page, doc.relative_to(tree) / folder / page.name)
    install(tree, ROOT / "packaging/config/prices.toml", doc.relative_to(tree) / "prices.toml")
    for page in ("terms.md", "architecture.md"):
        install(tree, ROOT / "docs" / page, doc.relative_to(tree) / page)


def gather_part(tree, part):
    install(tree, ROOT / f"packaging/systemd/farshore-{part}.service",
            f"lib/systemd/system/farshore-{part}.service")
    install(tree, ROOT / f"packaging/config/{part}.toml", f"etc/farshore/{part}.toml")
    if part == "vault":
        install(tree, ROOT / "packaging/grafana/farshore.json", "usr/share/farshore/grafana/farshore.json")
    if part == "agent":
        agent = ROOT / "packaging/agent"
        install(tree, agent / "initramfs/hook", "usr/share/initramfs-tools/hooks/farshore", 0o755)
        install(tree, agent / "initramfs/init-premount",
                "usr/share/initramfs-tools/scripts/init-premount/farshore", 0o755)
        for unit in ("farshore-early.path", "farshore-early.service"):
            install(tree, agent / "initramfs" / unit, f"lib/systemd/system/{unit}")
        install(tree, agent / "farshore-save.shutdown", "lib/systemd/system-shutdown/farshore-save.shutdown",
                0o755)


def library_packages(tree):
    """What the programs and the plugin need, by dpkg-shlibdeps, which wants a source tree around it."""
    with tempfile.TemporaryDirectory() as work:
        (pathlib.Path(work) / "debian").mkdir()
        (pathlib.Path(work) / "debian/control").write_text("Source: farshore\n\nPackage: farshore\n"
                                                           "Architecture: any\n")
        said = output("dpkg-shlibdeps", "-O", "--ignore-missing-info",
                      *(f"-e{file}" for file in (tree / "usr/lib/farshore/bin/farshore",
                                                 tree / "usr/lib/farshore/bin/farshore-nbd-front",
                                                 tree / "usr/lib/farshore/lib/nbdkit-farshore-plugin.so")),
                      cwd=work, stderr=subprocess.DEVNULL)
    return said.removeprefix("shlibs:Depends=")


def finish(name, tree, values, out, when):
    doc = tree / f"usr/share/doc/{name}"
    doc.mkdir(parents=True, exist_ok=True)
    (doc / "copyright").write_text(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: farshore\n\nFiles: *\nCopyright: The Farshore developers\nLicense: Apache-2.0\n"
        " The licence is in /usr/share/common-licenses/Apache-2.0.\n")
    changes = (f"farshore ({values['version']}) stable; urgency=medium\n\n"
               f"  * Built from the sources of this version.\n\n -- {MAINTAINER}  {when[1]}\n")
    with open(doc / "changelog.gz", "wb") as file:
        file.write(gzip.compress(changes.encode(), 9, mtime=0))
    size_kib = sum((p.lstat().st_size + 1023) // 1024 for p in tree.rglob("*") if not p.is_dir())
    meta = tree / "DEBIAN"
    meta.mkdir()
    (meta / "control").write_text(control_of(name).format(size=size_kib, **values) + "\n")
    conffiles = sorted(f"/{p.relative_to(tree)}" for p in (tree / "etc").rglob("*") if p.is_file())
    if conffiles:
        (meta / "conffiles").write_text("\n".join(conffiles) + "\n")
    sums = [f"{output('md5sum', p).split()[0]}  {p.relative_to(tree)}" for p in sorted(tree.rglob("*"))
            if p.is_file() and not p.is_symlink() and meta not in p.parents
            and f"/{p.relative_to(tree)}" not in conffiles]
    (meta / "md5sums").write_text("\n".join(sums) + "\n")
    for script in ("postinst", "prerm", "postrm"):
        if (HERE / f"{name}.{script}").exists():
            install(tree, HERE / f"{name}.{script}", f"DEBIAN/{script}", 0o755)
    for path in [tree, *tree.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
        elif path.is_file() and not path.is_symlink() and meta in path.parents and path.suffix == "":
            path.chmod(0o755 if path.name in ("postinst", "prerm", "postrm") else 0o644)
    architecture = re.search(r"^Architecture: (\S+)$", (meta / "control").read_text(), re.MULTILINE)[1]
    package = out / f"{name}_{values['version']}_{architecture}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "--uniform-compression", "--build", tree, package],
                   check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "SOURCE_DATE_EPOCH": str(when[0])})
    return package


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    build, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.umask(0o022)
    epoch = int(git("log", "-1", "--format=%ct") or 0)
    when = (epoch, output("date", "-Ru", "-d", f"@{epoch}"))
    values = {"version": version(), "architecture": output("dpkg", "--print-architecture"),
              "maintainer": MAINTAINER}
    with tempfile.TemporaryDirectory() as work:
        trees = {name: pathlib.Path(work) / name
                 for name in ("farshore", *(f"farshore-{part}" for part in PARTS))}
        gather_program(trees["farshore"], build)
        values["libraries"] = library_packages(trees["farshore"])
        for part in PARTS:
            gather_part(trees[f"farshore-{part}"], part)
        for name, tree in trees.items():
            print(finish(name, tree, values, out, when))


if __name__ == "__main__":
    main()
