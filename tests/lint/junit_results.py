#!/usr/bin/env python3
"""Prints one line for each test of a ctest JUnit file: passed, failed or skipped, and its name."""
import sys
import xml.etree.ElementTree as ElementTree


def main():
    for case in ElementTree.parse(sys.argv[1]).getroot().iter("testcase"):
        status = case.get("status")
        if case.find("skipped") is not None or status in ("notrun", "disabled"):
            kind = "skipped" if status == "disabled" or is_skip(case) else "failed"
        elif status == "run" and case.find("failure") is None:
            kind = "passed"
        else:
            kind = "failed"
        print(kind, case.get("name"))


def is_skip(case):
    """A test that could not be started is 'notrun' too: that is a failure, not a skip."""
    skipped = case.find("skipped")
    message = (skipped.get("message") or "") if skipped is not None else ""
    return "SKIP" in message.upper() and "Unable to find" not in message


if __name__ == "__main__":
    main()
