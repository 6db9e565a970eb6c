#!/usr/bin/env python3
"""End to end: a replica that begins with an image which is at the recovery site already."""
import subprocess

import support
from support import EndToEnd, FarshoreError, Model, seeded

MIB = 1 << 20
BLOCK = 64 << 10


class Seeds(EndToEnd):
    def protect(self, name, paths, seeds, *options):
        arguments = [word for path in paths for word in ("--disk", path)]
        arguments += [word for seed in seeds for word in ("--seed", seed)]
        return self.farshore.call("protect", name, *arguments, "--point-interval", 2, *options)

    def seed_of(self, name):
        return self.farshore.call("item", name).get("seed", {})

    def test_only_what_differs_from_the_seed_travels(self):
        """Breaks when the seed is not used, when a difference is missed, or when points of the
        seed alone are offered."""
        rng = seeded()
        self.farshore.start_up()
        model = Model([24 * MIB + 512, 8 * MIB], rng)
        paths = model.make_files(self.work)
        seeds = []
        for number, disk in enumerate(model.disks):
            image = bytearray(disk)
            for block in rng.sample(range(len(disk) // BLOCK), 5):
                image[block * BLOCK + 100:block * BLOCK + 110] = bytes(10)
            seeds.append(self.work / f"seed{number}.img")
            seeds[-1].write_bytes(image)
        self.protect("web", paths, seeds)
        item = self.wait_state("web", "protected")
        self.assertEqual("done", item["seed"]["state"])
        resync = item["resync"]
        self.assertEqual(10 * BLOCK, resync["differing_bytes"], resync)
        self.assertLess(resync["sent_bytes"], 13 * BLOCK, resync)
        client, other = self.open_disks("web")
        for _ in range(30):
            model.random_step([client, other], rng)
        point = self.farshore.call("point", "web", "--bookmark", "here")["sequence"]
        self.assert_point("web", point, model.copy())
        window = self.farshore.call("points", "web")["window"]
        with self.assertRaises(FarshoreError):
            self.read_point("web", window["oldest"]["sequence"] - 1, 0)

        # A point of it is the seed of its sister; one whose vault dies while it is read goes on.
        second = self.work / "second"
        second.mkdir()
        copies = []
        for number, disk in enumerate(model.copy()):
            copies.append(second / f"disk{number}.img")
            copies[-1].write_bytes(disk)
        self.protect("sister", copies, ["item:web@here"])
        self.farshore.kill_servers("up")
        self.farshore.start_up()
        item = self.wait_state("sister", "protected")
        self.assertEqual("done", item["seed"]["state"])
        self.assertEqual(0, item["resync"]["differing_bytes"], item["resync"])
        point = self.farshore.call("point", "sister", "--bookmark", "there")["sequence"]
        self.assert_point("sister", point, model.copy())

    def test_a_seed_of_another_disk_is_told_before_anything_is_copied(self):
        """Breaks when the image of another disk costs a whole copy without a word."""
        rng = seeded()
        self.farshore.start_up()
        model = Model([16 * MIB], rng)
        paths = model.make_files(self.work)
        wrong = self.work / "wrong.img"
        wrong.write_bytes(rng.randbytes(16 * MIB))
        self.protect("web", paths, [wrong])
        item = self.farshore.wait_for("the seed is held", lambda: (
            now := self.farshore.call("item", "web")).get("seed", {}).get("state") == "held" and now, 120)
        self.assertIn("seed-differs", [trouble["code"] for trouble in item["troubles"]])
        self.assertGreater(item["seed"]["differing_bytes"] * 2, item["seed"]["sampled_bytes"])
        self.assertEqual(0, item["resync"]["sent_bytes"], "it was copied without a word")
        with self.assertRaises(FarshoreError) as refused:
            self.farshore.call("seed", "retry", "web")
        self.assertEqual("wrong-state", refused.exception.code)
        self.farshore.call("seed", "accept", "web")
        self.wait_state("web", "protected")
        point = self.farshore.call("point", "web", "--bookmark", "here")["sequence"]
        self.assert_point("web", point, model.copy())

    def test_a_seed_that_cannot_be_read_waits_for_somebody(self):
        """Breaks when an unreadable seed stops the item for good, or is passed over in silence."""
        rng = seeded()
        self.farshore.start_up()
        model = Model([2 * MIB], rng)
        paths = model.make_files(self.work)
        image = self.work / "seed.qcow2"
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", paths[0], image], check=True)
        self.protect("web", paths, [image])
        item = self.farshore.wait_for("it is said", lambda: (
            now := self.farshore.call("item", "web"))["seed"]["state"] == "failed" and now, 120)
        trouble = next(t for t in item["troubles"] if t["code"] == "seed-failed")
        self.assertIn("qcow2", trouble["cause"])
        self.assertIn("qemu-nbd", trouble["remedy"])
        # Mended, it is read.
        image.write_bytes(bytes(model.disks[0]))
        self.farshore.call("seed", "retry", "web")
        self.wait_state("web", "protected")
        self.assertEqual(0, self.farshore.call("item", "web")["resync"]["differing_bytes"])
        more = Model([MIB], rng)
        (self.work / "more").mkdir()
        self.protect("other", more.make_files(self.work / "more"), [self.work / "missing.img"])
        self.farshore.wait_for("it is said", lambda: self.seed_of("other").get("state") == "failed", 120)
        self.farshore.call("seed", "skip", "other")
        self.wait_state("other", "protected")
        point = self.farshore.call("point", "other", "--bookmark", "here")["sequence"]
        self.assert_point("other", point, more.copy())


if __name__ == "__main__":
    support.main()
