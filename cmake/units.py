#!/usr/bin/env python3
"""Puts the sources of a target together into a few units, each of which is compiled at once: what they
include is then read and instantiated once for all of them, which takes a third of the time.

    units.py DIRECTORY SOURCES_ROOT EACH FILE…

prints what is to be compiled, semicolons between: units, written to DIRECTORY when they are not as they
must be, and files that stay alone. EACH is about how many files a unit has; with 1 every file is alone.

What a file keeps to itself (its anonymous namespace, its static functions) must not meet the same name of
another one or of what that includes, which would be an error, or, with functions, a silent choice of the
wrong one. So files that share such a name never share a unit, nor do those that use other namespaces as a
whole; one with macros of its own stays alone. Which unit a file is in follows from its name: a new file moves
few others.
"""
import collections
import functools
import pathlib
import re
import sys
import zlib

MACRO = re.compile(r"^#\s*define\b", re.MULTILINE)
USING = re.compile(r"^using namespace (.*?);", re.MULTILINE)
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
ALIAS = re.compile(r"using (\w+) = (.*)")
TYPE = re.compile(r"(?:template <.*> )?(?:class|struct|enum class|enum|union) (?:\[\[.*\]\] )?(\w+)")
FUNCTION = re.compile(r"(~?\w+)\(")
CONSTANT = re.compile(r"(static |inline |extern )*const(expr)? [^()]*=")
DECLARED = re.compile(r"(\w+)(?:\[[^\]]*\])* =(?: |$)")
VARIABLE = re.compile(r"(\w+)(?:\[[^\]]*\])*(?: = |\{|;| =$)")
# One name may stand for the same type in two files; a test's name is made of two.
TEST = re.compile(r"(?:TYPED_)?TEST(?:_F|_P)?\((\w+), *(\w+)")
NO_NAMES = ("#", "//", "}", ":", ")", "static_assert", "INSTANTIATE_", "BENCHMARK", "FS_", "using namespace ",
            "using ::", "using std::", "using testing::")


def names_of(text, header=False):
    """The names that a source keeps to itself, or that a header gives, found by the form that clang-format
    gives them: what stands at the beginning of a line is declared in a namespace. A name too many costs
    time, one too few an error."""
    names = set()
    inside, raw = header, False
    for line in text.splitlines():
        if raw:
            raw = ')"' not in line and not re.search(r'\)\w*"', line)
            continue
        if re.search(r'R"\w*\(', line) and not re.search(r'R"(\w*)\(.*\)\1"', line):
            raw = True
        if line.startswith("namespace {"):
            inside = True
        elif line.rstrip() == "}  // namespace":
            inside = header
        if line.startswith("namespace ") or not line or line[0].isspace():
            continue
        if test := TEST.match(line):
            names.add("_".join(test.groups()))
        elif line.startswith(NO_NAMES):
            continue
        elif alias := ALIAS.match(line):
            names.add(alias.group(0))
        elif not (inside or line.startswith("static ")):
            continue
        elif kind := TYPE.match(line):
            names.add(kind.group(1))
        elif CONSTANT.match(line):
            names.update(DECLARED.findall(line))
        elif function := FUNCTION.search(line):
            names.add(function.group(1))
        elif variable := VARIABLE.search(line):
            names.add(variable.group(1))
    return names


@functools.cache
def given_names(header, root):
    """The names that a header gives, by itself and by those of the project that it includes."""
    text = header.read_text()
    return names_of(text, True).union(*(given_names(path, root) for path in included(text, root)))


def included(text, root):
    return [path for name in INCLUDE.findall(text) if (path := root / name).is_file()]


def clashes(names, others):
    """An alias clashes with another meaning of its name, not with itself."""
    if any(name in others for name in names if " = " not in name):
        return True

    def meanings(given):
        return {alias.group(1): alias.group(2) for name in given if (alias := ALIAS.match(name))}

    own, other = meanings(names), meanings(others)
    return (any(other.get(name, text) != text for name, text in own.items())
            or any(name in other for name in names) or any(name in own for name in others))


class Unit:
    def __init__(self):
        self.files, self.own, self.given = [], set(), set()

    def takes(self, own, given):
        return not (clashes(own, self.own) or clashes(own, self.given) or clashes(self.own, given))

    def add(self, file, own, given):
        self.files.append(file)
        self.own |= own
        self.given |= given


def units_of(files, root, each):
    """Lists of files: those that are compiled together, and the others, each in a list of its own."""
    kinds = collections.defaultdict(list)
    for file in sorted(files):
        text = file.read_text()
        if each <= 1 or MACRO.search(text):
            kinds[file].append((file, set(), set()))
        else:
            given = set().union(*(given_names(path, root) for path in included(text, root)))
            kinds[tuple(USING.findall(text))].append((file, names_of(text), given))
    return [unit for kind in kinds.values() for unit in units_of_kind(kind, each)]


def units_of_kind(files, each):
    count = 1
    while count * each * 1.5 < len(files):
        count *= 2
    units, more = [Unit() for _ in range(count)], []
    for file, own, given in files:
        first = zlib.crc32(file.name.encode()) % count
        # What finds no place there goes to further ones.
        order = units[first:] + units[:first] + more
        place = next((unit for unit in order if unit.takes(own, given)), None)
        if place is None:
            more.append(place := Unit())
        place.add(file, own, given)
    return [unit.files for unit in units + more if unit.files]


def main():
    directory, root, each = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    out, made = [], 0
    for unit in units_of([pathlib.Path(name) for name in sys.argv[4:]], root, each):
        if len(unit) == 1:
            out.append(unit[0])
            continue
        # By its place under the root, so that it is the same in every clone.
        text = "".join(f'#include "{file.relative_to(root)}"  // NOLINT\n' for file in unit)
        path = directory / f"unit_{made}.cc"
        made += 1
        directory.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        out.append(path)
    print(";".join(map(str, out)), end="")


if __name__ == "__main__":
    main()
