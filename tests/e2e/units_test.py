#!/usr/bin/env python3
"""The systemd units as they are packaged: systemd understands all of them, and they stay as closed as
docs/operations/packages.md says they are."""
import pathlib
import re
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNITS = ROOT / "packaging/systemd"
# systemd's exposure of each, ten times; lower is better. The page has the same figures.
MOST_EXPOSED = {"farshore-vault": 19, "farshore-appliance": 15, "farshore-agent": 42}


class Units(unittest.TestCase):
    def test_systemd_understands_every_line(self):
        """Breaks when a unit has a line that systemd ignores, so that a fence is only on paper."""
        for name in MOST_EXPOSED:
            text = (UNITS / f"{name}.service").read_text()
            # The program need not be installed here.
            with tempfile.TemporaryDirectory() as work:
                unit = pathlib.Path(work) / f"{name}.service"
                unit.write_text(text.replace("ExecStart=/usr/bin/farshore", "ExecStart=/bin/true"))
                done = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit],
                                      capture_output=True, text=True, check=False)
            self.assertEqual((0, ""), (done.returncode, done.stdout + done.stderr), name)

    def test_no_unit_may_more_than_is_said(self):
        """Breaks when a unit is opened, or the page tells an older figure."""
        page = (ROOT / "docs/operations/packages.md").read_text()
        for name, most in MOST_EXPOSED.items():
            done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager",
                                   f"--threshold={most}", UNITS / f"{name}.service"],
                                  capture_output=True, text=True, check=False)
            found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout + done.stderr)
            self.assertIsNotNone(found, done.stdout + done.stderr)
            self.assertLessEqual(float(found[1]), most / 10, name)
            self.assertIn(f"| `{name}` | {found[1]} |", page)

    def test_only_the_agent_is_root(self):
        """Breaks when a part that needs no rights gets some."""
        for name in ("farshore-vault", "farshore-appliance"):
            lines = (UNITS / f"{name}.service").read_text().splitlines()
            self.assertIn(f"User={name}", lines)
            self.assertIn("CapabilityBoundingSet=", lines)
            self.assertIn("NoNewPrivileges=yes", lines)


if __name__ == "__main__":
    unittest.main(verbosity=2)
