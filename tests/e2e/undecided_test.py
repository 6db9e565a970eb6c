#!/usr/bin/env python3
"""End to end: failovers that nobody decides about."""
from return_test import MIB, RunsElsewhere
from support import FarshoreError, main, seeded


class Undecided(RunsElsewhere):
    def test_what_was_asked_for_happens_and_only_that(self):
        """Breaks when a failover is not committed or given up in its time, when one that a person has
        taken back is, or when a vault that was restarted forgets."""
        rng = seeded()
        self.farshore.start_up()
        for name in ("commits", "rolls-back", "waits"):
            (self.work / name).mkdir()
            paths = self.boot_model(rng, (2 * MIB,)).make_files(self.work / name)
            self.farshore.call("protect", name, *[word for path in paths for word in ("--disk", path)])
        for name in ("commits", "rolls-back", "waits"):
            self.wait_state(name, "protected")
        with self.assertRaises(FarshoreError) as error:
            self.fail_over("--commit-after", "1s", name="commits")
        self.assertEqual("malformed", error.exception.code)
        self.fail_over("--commit-after", "1m", name="commits")
        self.fail_over("--roll-back-after", "60s", name="rolls-back")
        self.fail_over("--roll-back-after", "60s", name="waits")
        listed = self.farshore.call("failover", "list", "commits")["failovers"][0]
        self.assertEqual("commit", listed["then"])
        self.assertIn("decided_at", listed)
        self.succeed("failover", "keep-open", "waits")
        self.farshore.kill_servers("up")
        self.farshore.restart_server("up")
        self.wait_state("commits", "committed", timeout_s=180)
        self.wait_state("rolls-back", "protected", timeout_s=180)
        self.assertEqual("failed-over", self.farshore.call("item", "waits")["state"])
        decided = [event for event in self.farshore.call("events", "--limit", 200)["events"]
                   if event["code"] == "failover-decided"]
        self.assertEqual(["commits", "rolls-back"], sorted(event["item"] for event in decided))


if __name__ == "__main__":
    main()
