#!/usr/bin/env python3
"""For so many seconds: a hunt over seeds of the simulated system, and beside it real processes that
are struck again and again (e2e/soak_test.py). `./run soak SECONDS` runs it.

The hunt first finds every planted bug, then runs the seeds from 1 on: 20 000 of them in 1800 s, in
proportion in less; to reach fewer is a failure. After those it goes on with seeds that nobody has
seen. Logs: build/release/soak/."""
import argparse
import os
import pathlib
import random
import re
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SEEDS, SEEDS_S = 20_000, 1800
# So many at once show that every fault site fires (system_sim_test.cc).
PORTION = 2000
# One installation lives for so long before the next one is made; its end takes about as long again
# as the last of these.
INSTALLATION_S, LEAST_S, END_S = 240, 20, 45


class Part:
    """Runs children one after the other until the deadline, and counts what went well."""

    def __init__(self, name, deadline, logs):
        self.name, self.deadline, self.logs = name, deadline, logs
        self.passed, self.failures, self.child, self.number = 0, [], None, 0

    def left_s(self):
        return self.deadline - time.monotonic()

    def run(self, what, command, environment, end_at_deadline):
        """Its output, or None when it failed or the time was up."""
        self.number += 1
        path = self.logs / f"{self.name}-{self.number}.log"
        with open(path, "wb") as log:
            self.child = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **environment}, cwd=ROOT)
            try:
                code = self.child.wait(max(self.left_s(), 1) if end_at_deadline else None)
            except subprocess.TimeoutExpired:
                self.child.terminate()
                self.child.wait()
                return None
        text = path.read_text(errors="replace")
        if code != 0:
            self.failures.append(f"{what} (exit code {code}, {path.relative_to(ROOT)})")
            print(f"FAILED: {self.failures[-1]}\n{text[-6000:]}", flush=True)
            return None
        self.passed += 1
        return text


class Hunt(Part):
    def __init__(self, binary, wanted, *rest):
        super().__init__("hunt", *rest)
        self.binary, self.wanted, self.seeds, self.table = binary, wanted, 0, ""

    def portion(self, first, count):
        text = self.run(f"seeds {first} to {first + count - 1}",
                        ["nice", "-n", "5", self.binary, "--gtest_filter=SystemSim.TheMainPath*"],
                        {"FARSHORE_FIRST_SEED": str(first), "FARSHORE_SEEDS": str(count)}, True)
        if text is None:
            return False
        self.seeds += count
        if count >= PORTION:
            self.table = text[text.index("fault site"):text.index("\n", text.index("never fired:"))]
        return True

    def work(self):
        if self.run("the planted bugs", [self.binary, "--gtest_filter=*PlantedBug*:*ASeedRepeats"], {},
                    True) is None:
            return
        begun, first = time.monotonic(), 1
        while self.left_s() > 0 and not self.failures:
            if self.seeds < self.wanted:
                count = min(PORTION, self.wanted - self.seeds)
            else:
                if first <= self.wanted:
                    first = random.SystemRandom().randrange(10**6, 10**12)
                rate = self.seeds / (time.monotonic() - begun)
                count = min(PORTION, int(rate * self.left_s() * 0.8))
                if count < 20:
                    return
            if not self.portion(first, count):
                return
            if self.seeds == self.wanted:
                print(f"hunt: {self.wanted} seeds after {time.monotonic() - begun:.0f} s", flush=True)
            first += count


class Strikes(Part):
    def __init__(self, *rest):
        super().__init__("strikes", *rest)
        self.counts = {"strikes": 0, "requests": 0, "points compared": 0}

    def work(self):
        tests = ["Soak.test_one_process", "Soak.test_three_programs"]
        while self.left_s() > LEAST_S + END_S and not self.failures:
            test = tests[self.number % len(tests)]
            seconds = min(INSTALLATION_S, self.left_s() / 2 if self.number == 0 else self.left_s() - END_S)
            text = self.run(test, [sys.executable, "tests/e2e/soak_test.py", test],
                            {"FARSHORE_SOAK_S": str(int(max(seconds, LEAST_S)))}, False)
            if text is None:
                return
            line = re.search(r"^soak: .*$", text, re.MULTILINE)[0]
            print(f"{test}: {line}", flush=True)
            for what in self.counts:
                self.counts[what] += int(re.search(rf"(\d+) {what}", line)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=int, nargs="?", default=SEEDS_S)
    seconds = parser.parse_args().seconds
    logs = ROOT / "build/release/soak"
    logs.mkdir(parents=True, exist_ok=True)
    for old in logs.glob("*.log"):
        old.unlink()
    begun = time.monotonic()
    wanted = min(SEEDS, SEEDS * seconds // SEEDS_S)
    hunt = Hunt(ROOT / "build/release/bin/system_sim_test", wanted, begun + seconds, logs)
    strikes = Strikes(begun + seconds, logs)
    threads = [threading.Thread(target=part.work) for part in (hunt, strikes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if hunt.seeds < wanted and not hunt.failures:
        hunt.failures.append(f"only {hunt.seeds} of {wanted} seeds in {seconds} s")
    print(hunt.table)
    print(f"hunt: {hunt.seeds} seeds, {wanted} wanted; every planted bug "
          f"{'found' if hunt.passed else 'NOT found'}")
    print(f"strikes: {strikes.passed} installations, " +
          ", ".join(f"{count} {what}" for what, count in strikes.counts.items()))
    failures = hunt.failures + strikes.failures
    for failure in failures:
        print(f"FAILED: {failure}")
    print(f"soak: {time.monotonic() - begun:.0f} s")
    print(f"{hunt.passed + strikes.passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
