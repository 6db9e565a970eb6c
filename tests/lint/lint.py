#!/usr/bin/env python3
"""The lints, each a test of its own: lint.py [NAME…], all without a name.

  names     no two types share a name
  layers    src/X includes only the folders that its CMakeLists.txt names
  seams     clocks, random numbers, files, sockets, processes only behind the seams
  format    clang-format 14 would change nothing
  tidy      clang-tidy finds nothing (findings are cached by content)
  docs      links between the documents lead somewhere; every folder is on the map
  tree      no paths of one machine, no secrets, no leftovers of a merge
  scripts   shellcheck and the Python compiler are content
  size      warns of long files and of sources without a test beside them

Options: --jobs N.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
LONG_FILE_LINES = 700
# Clang 14, Debian's default, has no std::source_location.
CLANG_TIDY = "clang-tidy-16"

COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


def sources(*patterns, folder="src"):
    found = []
    for pattern in patterns:
        found += (ROOT / folder).rglob(pattern)
    return sorted(found)


def relative(path):
    return str(path.relative_to(ROOT))


def code_only(text):
    """The text with comments and literals blanked out; line numbers stay."""
    return COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def tracked_files():
    """What git knows, or would add."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True,
                          capture_output=True, check=True)
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


# --- layers --------------------------------------------------------------------------------------

def cmake_words(text, function):
    """The words of each call of `function` in a CMake file."""
    text = re.sub(r"#[^\n]*", "", text)
    return [call.split() for call in re.findall(rf"\b{function}\s*\(([^)]*)\)", text)]


def layer_order():
    text = (ROOT / "cmake/FarshoreFolder.cmake").read_text()
    for words in cmake_words(text, "set"):
        if words[0] == "FARSHORE_LAYERS":
            return words[1:]
    raise SystemExit("lint: cmake/FarshoreFolder.cmake sets no FARSHORE_LAYERS")


def folder_uses(folder):
    """(USES, TEST_USES) of a folder's CMakeLists.txt; programs' own links count as well."""
    text = (folder / "CMakeLists.txt").read_text()
    lists = {"USES": set(), "TEST_USES": set(), "LINKS": set(), "": set()}
    for words in cmake_words(text, "farshore_folder"):
        into = ""
        for word in words[1:]:
            if word in lists:
                into = word
            else:
                lists[into].add(word)
    program_links = set()
    for words in cmake_words(text, "target_link_libraries"):
        program_links |= {w.removeprefix("farshore_") for w in words[1:] if w.startswith("farshore_")}
    return lists["USES"], lists["TEST_USES"], program_links


def lint_layers():
    order = layer_order()
    wrong = []
    for folder in sorted(p for p in (ROOT / "src").iterdir() if p.is_dir()):
        if not (folder / "CMakeLists.txt").exists():
            wrong.append(f"{relative(folder)}: has no CMakeLists.txt")
            continue
        uses, test_uses, program_links = folder_uses(folder)
        for used in uses:
            if used not in order or folder.name not in order or \
                    order.index(used) >= order.index(folder.name):
                wrong.append(f"{relative(folder)}/CMakeLists.txt: may not use '{used}'")
        for path in sorted([*folder.rglob("*.h"), *folder.rglob("*.cc")]):
            allowed = uses | {folder.name}
            if path.stem.endswith(("_test", "_bench", "_fuzz")) or "test" in path.stem.split("_"):
                allowed |= test_uses
            if path.stem.endswith(("_main", "_plugin")):
                allowed |= program_links
            for number, line in enumerate(path.read_text().splitlines(), 1):
                found = re.match(r'\s*#\s*include\s+"([^"/]+)/', line)
                if found and (ROOT / "src" / found[1]).is_dir() and found[1] not in allowed:
                    wrong.append(f"{relative(path)}:{number}: src/{folder.name} does not use src/{found[1]}")
                elif re.match(r'\s*#\s*include\s+"(\.\./|[^"/]+")', line):
                    wrong.append(f"{relative(path)}:{number}: include by folder: \"folder/file.h\"")
    return wrong


# --- seams ---------------------------------------------------------------------------------------

SEAM_RULES = [
    (r"\b(system_clock|steady_clock|high_resolution_clock)\b", "clock"),
    (r"\b(gettimeofday|clock_gettime|localtime|nanosleep|usleep)\s*\(", "clock"),
    (r"(?<![\w.>])(?:std::|::)?time\s*\(\s*(nullptr|NULL|0)\s*\)", "clock"),
    (r"\bsleep_(for|until)\b|(?<![\w.>])::?sleep\s*\(", "clock"),
    (r"\b(s?rand|drand48|random_device|arc4random\w*|getrandom|RAND_bytes)\s*[({;]", "random"),
    (r"\bstd::(mt19937(_64)?|default_random_engine)\b", "random"),
    (r"(?<![\w:])::(open|openat|creat|read|write|pread|pwrite|preadv|pwritev|readv|writev|fsync|fdatasync"
     r"|sync_file_range|unlink|rename|mkdir|ftruncate|fallocate|mmap|munmap|flock|stat|fstat)\s*\(", "file"),
    (r"\bstd::([io]?fstream|filebuf|fopen|filesystem::\w+)\b|(?<![\w:.>])fopen\s*\(", "file"),
    (r"(?<![\w:])::(socket|connect|bind|listen|accept4?|send|recv|sendmsg|recvmsg|socketpair)\s*\(", "socket"),
    (r"\bboost/(asio|beast)", "socket"),
    (r"(?<![\w:])::(fork|exec[vl]\w*|kill)\s*\(|\b(posix_spawnp?|waitpid|popen)\s*\(|\bstd::system\s*\(",
     "process"),
]


def allowed_seams():
    """tests/lint/seams_allowed.txt: `path-glob kinds reason`, one a line."""
    allowed = []
    for number, line in enumerate((HERE / "seams_allowed.txt").read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        words = line.split(None, 2)
        if len(words) != 3:
            raise SystemExit(f"lint: seams_allowed.txt:{number}: path, kinds, reason")
        allowed.append((words[0], set(words[1].split(","))))
    return allowed


def lint_seams():
    wrong = []
    exceptions = allowed_seams()
    used = set()
    for path in sources("*.h", "*.cc"):
        name = relative(path)
        if name.startswith("src/os/"):
            continue
        is_test = path.stem.endswith(("_test", "_bench", "_fuzz")) or "test" in path.stem.split("_")
        text = path.read_text()
        includes = "\n".join(line if line.lstrip().startswith("#") else "" for line in text.splitlines())
        for lines in (code_only(text).splitlines(), includes.splitlines()):
            for number, line in enumerate(lines, 1):
                for rule, kind in SEAM_RULES:
                    if not re.search(rule, line):
                        continue
                    # Tests may make real files and sockets, and draw a seed that they print.
                    if is_test and kind in ("file", "process", "socket", "random"):
                        continue
                    if path.stem.endswith("_bench") and kind == "clock":
                        continue
                    exception = next((glob for glob, kinds in exceptions
                                      if path.match(glob) and kind in kinds), None)
                    if exception is None:
                        wrong.append(f"{name}:{number}: {kind} outside the seams: {line.strip()}")
                    used.add(exception)
    for glob, _ in exceptions:
        if glob not in used:
            print(f"warning: tests/lint/seams_allowed.txt: '{glob}' is not needed any more")
    return sorted(set(wrong))


# --- format, tidy --------------------------------------------------------------------------------

def lint_format():
    files = [p for folder in ("src", "tests", "bench") for p in sources("*.h", "*.cc", folder=folder)]
    wrong = []
    for path in files:
        done = subprocess.run(["clang-format", "--dry-run", "-Werror", "-ferror-limit=1", str(path)],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            wrong.append(f"{relative(path)}: not as clang-format writes it (./run format)")
    return wrong


def tidy_cache():
    cache = pathlib.Path(os.environ.get("FARSHORE_CACHE") or pathlib.Path.home() / ".cache/farshore")
    directory = cache / "tidy"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def included_headers(path, seen):
    """The project's own headers that a source includes, directly or through others."""
    for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.MULTILINE):
        header = ROOT / "src" / name
        if header not in seen and header.is_file():
            seen.add(header)
            included_headers(header, seen)
    return seen


def tidy_key(path, arguments, configuration):
    digest = hashlib.sha256(configuration)
    digest.update("\0".join(a for a in arguments if str(ROOT) not in a).encode())
    for file in [path, *sorted(included_headers(path, set()))]:
        digest.update(relative(file).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:40]


def tidy_one(path, build):
    done = subprocess.run(
        ["nice", CLANG_TIDY, "-p", str(build), "--quiet", "--warnings-as-errors=*",
         f"--header-filter={ROOT}/src/.*", "--extra-arg=-Wno-everything", str(path)],
        capture_output=True, text=True, timeout=300, check=False)
    findings = [line.replace(f"{ROOT}/", "") for line in done.stdout.splitlines()
                if re.search(r": (warning|error): ", line)]
    if done.returncode != 0 and not findings:
        findings = [f"{relative(path)}: clang-tidy failed: {done.stderr.strip()[-300:]}"]
    return findings


def commands_of_each_file():
    """A build directory that compiles no files together, so that each is read with what it includes itself;
    of what it makes, the generated headers alone are made."""
    for command in (["cmake", "--preset", "tidy"], ["ninja", "-C", "build/tidy", "farshore_bpf_skeletons"]):
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return ROOT / "build/tidy"


def lint_tidy(jobs, budget_s):
    """Checks the sources whose content (with their headers) has not been found clean before. Stops
    at the budget with what was found until then: the next run goes on where this one stopped."""
    commands, build = {}, commands_of_each_file()
    for entry in json.loads((build / "compile_commands.json").read_text()):
        commands[pathlib.Path(entry["file"])] = entry.get("arguments") or entry["command"].split()
    version = subprocess.run([CLANG_TIDY, "--version"], capture_output=True, check=True).stdout
    configuration = (ROOT / ".clang-tidy").read_bytes() + version
    cache = tidy_cache()
    todo, clean = [], 0
    for path in sorted(p for p in commands if str(p).startswith(f"{ROOT}/src/") and p.is_file()):
        key = tidy_key(path, commands[path], configuration)
        if (cache / key).exists():
            clean += 1
        else:
            todo.append((path, key))
    deadline = time.monotonic() + budget_s
    wrong, unchecked = [], []

    def check(item):
        path, key = item
        if time.monotonic() > deadline:
            return path, None
        try:
            findings = tidy_one(path, build)
        except subprocess.TimeoutExpired:
            return path, [f"{relative(path)}: clang-tidy took over 300 s"]
        if not findings:
            (cache / key).touch()
        return path, findings

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for path, findings in pool.map(check, todo):
            if findings is None:
                unchecked.append(path)
            else:
                wrong += findings
    print(f"clang-tidy: {clean} known clean, {len(todo) - len(unchecked)} checked, "
          f"{len(unchecked)} left for the next run (budget {budget_s} s)")
    return sorted(set(wrong))


# --- docs, tree, scripts, size -------------------------------------------------------------------

def heading_anchor(line):
    text = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", line.lstrip("#").strip()).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def lint_docs():
    wrong = []
    for path in [p for p in tracked_files() if p.suffix == ".md"]:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            linked = (path.parent / name).resolve() if name else path
            if not linked.exists():
                wrong.append(f"{relative(path)}: link to nothing: {target}")
            elif anchor and linked.suffix == ".md":
                lines = linked.read_text().splitlines()
                if anchor not in {heading_anchor(l) for l in lines if l.startswith("#")}:
                    wrong.append(f"{relative(path)}: no such heading: {target}")
    on_map = set(re.findall(r"^\| `(\w+)/`", (ROOT / "src/README.md").read_text(), re.MULTILINE))
    folders = {p.name for p in (ROOT / "src").iterdir() if p.is_dir()}
    wrong += [f"src/README.md: src/{f} is missing" for f in sorted(folders - on_map)]
    wrong += [f"src/README.md: there is no src/{f}" for f in sorted(on_map - folders)]
    return wrong


EVENT_CODE = re.compile(
    r"event\(\s*(?:[\w:.?]|\s|->)*?(?:Severity::k\w+|\w+\.severity)[^;\"]*?\"([a-z]+(?:-[a-z]+)+)\""
    r"|\.code = \"([a-z]+(?:-[a-z]+)+)\"|\bSeverity::k\w+,\s*\"([a-z]+(?:-[a-z]+)+)\""
    r"|kEvent = \"([a-z]+(?:-[a-z]+)+)\"")


TYPE_DEFINITION = re.compile(r"(?:template <.*> )?(?:class|struct|enum class|enum|union) (?:\[\[.*\]\] )?(\w+)(?: final)?"
                             r"(?: : .*)?(?: \{|$)")


def lint_names():
    """Two types of one name in a program are one to the linker, which keeps the functions of one of them."""
    places = {}
    for path in sources("*.cc", "*.h"):
        within = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if opened := re.match(r"namespace ([\w:]*) ?\{", line):
                within.append(opened.group(1))
            elif line.startswith("}  // namespace") and within:
                within.pop()
            elif "" not in within and (defined := TYPE_DEFINITION.match(line)):
                places.setdefault("::".join([*within, defined.group(1)]), []).append(f"{relative(path)}:{number}")
    return [f"{where[0]}: '{name}' is defined here and at {', '.join(where[1:])}"
            for name, where in sorted(places.items()) if len(where) > 1]


def lint_events():
    """Codes of events and troubles, against docs/operations/events.md."""
    page = ROOT / "docs/operations/events.md"
    listed = {code for row in re.findall(r"^\| (`[^|]*)\|", page.read_text(), re.MULTILINE)
              for code in re.findall(r"`([a-z-]+)`", row)}
    said, text = {}, ""
    for path in sources("*.cc", "*.h"):
        if path.name.endswith("_test.cc"):
            continue
        content = path.read_text()
        text += content
        for groups in EVENT_CODE.findall(content):
            said.setdefault(next(filter(None, groups)), relative(path))
    wrong = [f"{where}: '{code}' is not in {relative(page)}" for code, where in sorted(said.items())
             if code not in listed]
    return wrong + [f"{relative(page)}: nothing says '{code}'" for code in sorted(listed)
                    if f'"{code}"' not in text]


TREE_RULES = [
    (re.compile(r"(?<![\w.])/(?:home/\w+|root|work|Users/\w+)/[\w.]"), "a path of one machine"),
    (re.compile(r"^(<{7} |>{7} |={7}$)", re.MULTILINE), "left over from a merge"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*\n[A-Za-z0-9+/=]{20}"), "a private key"),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b|\bghp_[A-Za-z0-9]{36}\b"), "an access key"),
]


def lint_tree():
    wrong = []
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" in data[:8000]:
            if len(data) > 1 << 20:
                wrong.append(f"{relative(path)}: a binary file of {len(data)} bytes")
            continue
        text = data.decode("utf-8", "replace")
        for rule, words in TREE_RULES:
            found = rule.search(text)
            if found and path != pathlib.Path(__file__).resolve():
                line = text.count("\n", 0, found.start()) + 1
                wrong.append(f"{relative(path)}:{line}: {words}")
    return wrong


def lint_scripts():
    wrong = []
    for path in tracked_files():
        try:
            first = path.open("rb").readline()
        except OSError:
            continue
        if path.suffix == ".py" or b"python3" in first[:40]:
            try:
                compile(path.read_bytes(), str(path), "exec")
            except SyntaxError as error:
                wrong.append(f"{relative(path)}:{error.lineno}: {error.msg}")
        elif first.startswith(b"#!") and re.search(rb"\b(ba)?sh\b", first):
            done = subprocess.run(["shellcheck", "-f", "gcc", str(path)], capture_output=True,
                                  text=True, check=False)
            wrong += [line.replace(f"{ROOT}/", "") for line in done.stdout.splitlines()]
    return wrong


def lint_size():
    """Warnings only: a person decides."""
    for path in sources("*.h", "*.cc"):
        lines = len(path.read_text().splitlines())
        if lines > LONG_FILE_LINES:
            print(f"warning: {relative(path)} has {lines} lines: is it still one idea?")
        if path.suffix != ".cc" or path.stem.endswith(("_test", "_fuzz", "_bench", "_main", "_plugin")):
            continue
        if not path.with_name(f"{path.stem}_test.cc").exists():
            print(f"warning: {relative(path)} has no {path.stem}_test.cc beside it")
    return []


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    lints = {
        "layers": lint_layers, "seams": lint_seams, "names": lint_names,
        "format": lint_format, "docs": lint_docs,
        "tree": lint_tree, "scripts": lint_scripts, "size": lint_size, "events": lint_events,
        "tidy": lambda: lint_tidy(options.jobs, options.budget),
    }
    parser.add_argument("names", nargs="*", metavar="NAME", help=" ".join(lints))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--budget", type=int, default=240, help="seconds for clang-tidy")
    options = parser.parse_args()
    failed = False
    for name in options.names or lints:
        if name not in lints:
            parser.error(f"no lint '{name}'")
        wrong = lints[name]()
        print(f"{name}: {'clean' if not wrong else f'{len(wrong)} findings'}")
        for finding in wrong:
            print(f"  {finding}")
        failed = failed or bool(wrong)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
