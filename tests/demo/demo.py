#!/usr/bin/env python3
"""The demo: a running Debian machine with a database is protected, its site is lost, and it comes
back from the replica with every transaction; then once more as it was 20 seconds earlier.

What it proves it counts: the guest reports each transaction on its serial line after the commit, the
recovered database is compared with what had been reported. `./run demo --help` lists the options.

`--story circle` is another one (circle.py): two machines that belong together, lost and brought home.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "guest"), str(HERE.parent / "services")]

import agent_guest  # noqa: E402
import build_image  # noqa: E402
import circle  # noqa: E402
import guest as guests  # noqa: E402
from azurite import Azurite  # noqa: E402
import radosgw  # noqa: E402
import s3  # noqa: E402
from show import Stage, bytes_text, ms_of, percentile, rfc3339  # noqa: E402
from farshore import Farshore, FarshoreError, in_document  # noqa: E402

NAME = "harbour"
EARLIER_S = 20
NICE_STATES = {"enabling": "setting up", "initial-replication": "first copy"}


class RpoSampler:
    """Asks for the item about twice a second and keeps the RPO of the moments in which it is protected."""

    def __init__(self, farshore):
        self._farshore = farshore
        self.samples_ms = []
        self.item = {}

    def sample(self):
        try:
            self.item = self._farshore.call("item", NAME, timeout_s=20)
        except (FarshoreError, subprocess.TimeoutExpired):
            return self.item
        if self.item.get("state") == "protected" and "rpo_s" in self.item:
            self.samples_ms.append(self.item["rpo_s"] * 1000)
        return self.item


class Demo:
    def __init__(self, options):
        self.options = options
        self.stage = Stage()
        self.result = {}
        self.work = None
        self.source = None
        self.farshore = None
        self.azurite = None
        self.s3_server = None
        self.guest_facts = {}
        self.image = None
        self.agent_name = ""
        self.checks = []   # (ok, text)

    def check(self, ok, text):
        self.checks.append((bool(ok), text))
        mark = "ok  " if ok else "BAD "
        self.stage.detail(f"{mark}{text}")

    # --- the site, protected -----------------------------------------------------------------

    def prepare(self):
        self.work = pathlib.Path(self.options.work or tempfile.mkdtemp(prefix="farshore-demo-"))
        self.work.mkdir(parents=True, exist_ok=True)
        self.image = self.make_image()
        self.guest_facts = json.loads((self.image / "guest.json").read_text())
        accelerator = self.options.accelerator or guests.pick_accelerator(self.image, self.image.parent)
        self.result["accelerator"] = accelerator
        return accelerator

    def make_image(self):
        return build_image.ensure()

    def make_source(self, accelerator):
        kind = agent_guest.AgentGuest if self.options.agent else guests.SourceGuest
        return kind(self.image, self.work / "source", accelerator)

    def start_source(self, accelerator):
        words = "KVM" if accelerator == "kvm" else "emulation (TCG): KVM does not run a Debian kernel here"
        self.stage.step(f"Starting the machine '{NAME}' under QEMU, by {words}")
        if not self.options.agent:
            self.source = self.make_source(accelerator)
        self.source.start()
        ready_ms = self.source.wait_ready(600)
        self.stage.detail(f"Debian is up after {ready_ms / 1000:.1f} s; two disks, PostgreSQL on the second")
        if self.options.agent:
            self.start_agent()
        self.source.start_load(self.options.rate)
        self.source.serial.wait_for_transactions(20, 60)
        self.stage.detail("the database commits numbered transactions and reports each on the serial line")

    def agent_files(self):
        """What the agent's disk has besides the agent: name -> text."""
        return {}

    def start_agent(self):
        self.stage.step("Starting the agent inside the machine")
        agent_guest.run_agent(self.source)
        self.agent_name = agent_guest.wait_for_agent(self.source, self.farshore)
        self.stage.detail("it has enrolled with its token, through the appliance; nothing was restarted, "
                          "and the hypervisor takes no part")

    def start_farshore(self, accelerator):
        self.farshore = Farshore(self.options.binary, self.work / "recovery-site", self.work / "logs",
                                 {"FARSHORE_ACCEL": accelerator})
        if self.options.store == "azure":
            self.start_azurite()
        if self.options.store == "s3":
            self.start_s3()
        if self.options.agent:
            self.stage.step("Starting the vault, and an appliance at the source site")
            self.farshore.start_vault()
            self.source = self.make_source(accelerator)
            agent_guest.prepare(self.source, self.farshore, self.work / "source-site", NAME,
                                self.agent_files())
        elif self.options.split:
            self.stage.step("Starting vault, appliance and agent, each by itself")
            self.farshore.start_split(self.work / "source-site")
        else:
            self.stage.step("Starting Farshore: agent, appliance and vault in one process")
            self.farshore.start_up()

    def start_s3(self):
        self.stage.step("Starting an S3 server at the recovery site: Ceph's radosgw, with TLS")
        self.s3_server = radosgw.Radosgw()
        self.s3_server.start()
        s3.S3(self.s3_server.endpoint, self.s3_server.key, self.s3_server.secret,
              str(self.s3_server.ca)).make_bucket("farshore")
        settings = self.work / "store.json"
        settings.touch(mode=0o600)
        settings.write_text(json.dumps({
            "endpoint": self.s3_server.endpoint, "ca_file": str(self.s3_server.ca),
            "access_key_id": self.s3_server.key, "secret_access_key": self.s3_server.secret}))
        self.farshore.store_options = ["--store", "s3://farshore/demo", "--store-settings", settings]

    def start_azurite(self):
        self.stage.step("Starting Azure Blob storage's emulator at the recovery site: Azurite, with TLS")
        self.azurite = Azurite(self.work / "azurite").start()
        self.azurite.make_container("farshore")
        settings = self.work / "store.json"
        settings.touch(mode=0o600)
        settings.write_text(json.dumps(self.azurite.settings()))
        self.farshore.store_options = ["--store", f"azure://{self.azurite.account}/farshore/demo",
                                       "--store-settings", settings]

    def protect(self):
        what = (self.source.device_options() + ["--agent", self.agent_name] if self.options.agent
                else ["--qmp", self.source.qmp_path])
        words = " ".join(what) if self.options.agent else "--qmp …"
        self.stage.step(f"farshore protect {NAME} {words} (the machine keeps running)")
        before = self.source.serial.reported()
        started = time.monotonic()
        self.farshore.call("protect", NAME, *what, "--point-interval", self.options.point_interval)
        sampler = RpoSampler(self.farshore)

        def show():
            item = sampler.item
            total = item.get("copy_total_bytes") or 0
            state = NICE_STATES.get(item.get("state"), item.get("state", "…"))
            share = f", {100 * item.get('copied_bytes', 0) / total:.0f} %" if total else ""
            eta = f", about {item['eta_s']} s left" if item.get("eta_s") is not None else ""
            self.stage.live(f"{state}{share}{eta}; transaction {self.source.serial.reported()}")

        self.farshore.wait_for("the machine is protected",
                               lambda: sampler.sample().get("state") == "protected", 900, 0.4, show)
        seconds = time.monotonic() - started
        self.result["protect_s"] = round(seconds, 1)
        self.stage.detail(f"protected after {seconds:.1f} s; {self.source.serial.reported() - before} "
                          "transactions were committed meanwhile")
        sampler.samples_ms.clear()
        return sampler

    def run_load(self, sampler):
        self.stage.step(f"The database works for {self.options.seconds} s under protection")
        end = time.monotonic() + self.options.seconds
        while time.monotonic() < end:
            item = sampler.sample()
            if self.source.process.poll() is not None:
                raise RuntimeError("the source machine ended by itself")
            rpo = f"{item['rpo_s']:.2f} s" if "rpo_s" in item else "unknown"
            self.stage.live(f"RPO {rpo}   transaction {self.source.serial.reported()}   "
                            f"lag {bytes_text(item.get('lag_bytes', 0))}   {item.get('state')}")
            time.sleep(0.4)
        self.stage.clear()
        if not sampler.samples_ms:
            raise RuntimeError("no RPO could be measured: the machine was not protected any more")
        self.result["rpo_ms_p50"] = round(percentile(sampler.samples_ms, 50))
        self.result["rpo_ms_p99"] = round(percentile(sampler.samples_ms, 99))
        self.result["rpo_samples"] = len(sampler.samples_ms)
        item = sampler.item
        self.result["bytes_written"] = item.get("written_bytes")
        self.result["bytes_stored"] = item.get("stored_bytes")
        points = self.farshore.call("points", NAME)
        self.result["points"] = len(points.get("points", []))
        window = points.get("window") or {}
        if "newest" in window:
            # A gap offers no point, and a new log after a restart leaves numbers out there.
            self.result["sequences"] = (
                window["newest"]["sequence"] - window["oldest"]["sequence"] + 1 - sum(
                    gap["before"]["sequence"] - gap["after"]["sequence"] - 1
                    for gap in points.get("gaps") or [] if gap.get("before") and gap.get("after")))
        self.stage.detail(f"RPO p50 {self.result['rpo_ms_p50']} ms, p99 {self.result['rpo_ms_p99']} ms "
                          f"in {len(sampler.samples_ms)} samples; {self.result['points']} points listed, "
                          f"any of {self.result.get('sequences', 0)} moments can be recovered")

    # --- the disaster ------------------------------------------------------------------------

    def lose_site(self):
        if self.options.agent:
            self.stage.step("The site is lost: SIGKILL to QEMU, with the agent in it, and to the appliance, "
                            "in the middle of the load")
            killed_ms = self.source.kill()
            self.farshore.kill_servers("appliance")
            gone = "the spool"
        else:
            self.stage.step("The site is lost: SIGKILL to QEMU, tap, agent and appliance, in the middle of "
                            "the load")
            killed_ms = self.source.kill()
            taps = self.farshore.kill_descendants("nbdkit")
            self.farshore.kill_servers()
            self.farshore.kill_descendants()
            gone = f"{len(taps)} tap process, the spool"
        for part in ("agent", "appliance"):
            shutil.rmtree(self.farshore.data / part, ignore_errors=True)
        shutil.rmtree(self.work / "source-site", ignore_errors=True)
        # Kept for the one question that the source's own disks must answer: what had been committed.
        for disk in self.source.disks:
            disk.unlink()
        committed = self.source.serial.reported()
        self.result["committed"] = committed
        self.stage.detail(f"gone: the machine and its disks, {gone}, the agent's memory. "
                          f"Reported as committed: {committed} transactions")
        return killed_ms

    def commit_clock(self):
        """What to add to the guest's clock for the host's: the smallest delay that any line had."""
        return min(arrival - guest_ms for _, guest_ms, arrival in self.source.serial.transactions)

    def expected_at(self, at_ms):
        """(least, most) transactions that the machine's disks held at that moment of the host: those
        reported by then, and those whose commit was over by then and the one that was in its commit."""
        offset_ms = self.commit_clock()
        # An agent inside the machine dates points by the machine's clock. By how much it differs is
        # known no better than a line's delay, so both ways of reading the moment are allowed.
        least_ms = min(at_ms, at_ms + offset_ms) if self.options.agent else at_ms
        most_ms = max(at_ms, at_ms + offset_ms) if self.options.agent else at_ms
        committed = max((n for n, guest_ms, _ in self.source.serial.transactions
                         if guest_ms + offset_ms <= most_ms), default=0)
        return self.source.serial.reported(least_ms), committed + 1

    # --- recovery ----------------------------------------------------------------------------

    def recover(self, *verb):
        """Runs a failover verb; returns (machine, job, ms to first read, ms to login)."""
        ordered_ms = time.time_ns() / 1e6
        job = self.farshore.call("failover", *verb, "--no-wait")

        def over():
            found = self.farshore.call("job", job["id"])
            self.stage.live(found.get("message") or found["state"])
            return found if found["state"] not in ("queued", "running") else None

        job = self.farshore.wait_for("the failover job ends", over, 300, 0.1)
        if job["state"] != "succeeded":
            raise RuntimeError(f"the failover job {job['state']}: {json.dumps(job.get('error'))}")
        job_ms = time.time_ns() / 1e6 - ordered_ms
        where = [job.get("result"), self.failover_of(job, verb[0])]
        machine = guests.RecoveredMachine(in_document(where, "serial_log"), in_document(where, "serial_socket"))
        login_ms, _ = machine.wait_for(r"^READY ", 300)
        first_read = in_document(where, "first_read")
        return machine, job, round(job_ms if first_read is None else first_read), \
            round(login_ms - ordered_ms)

    def failover_of(self, job, verb):
        for failover in self.farshore.call("failover", "list", NAME)["failovers"]:
            if failover.get("job") == job["id"] or failover["kind"] == ("test" if verb == "test" else "failover"):
                return failover
        raise RuntimeError("the failover is not listed")

    def verify_machine(self, machine, least, most, moment):
        report = guests.verify(machine)
        wrong = guests.integrity_errors(report, self.guest_facts)
        recovered = report.get("max", 0)
        self.check(not wrong, "file systems and database are sound: journal replay, pg_amcheck, page "
                              "checksums, sums of all accounts, both disks of one moment"
                   if not wrong else "; ".join(wrong))
        self.check(least <= recovered <= most,
                   f"{recovered} transactions; {moment}: {least} had been reported"
                   + (f", up to {most} can have been committed" if not least <= recovered <= most else ""))
        return recovered, not wrong

    def offline_check(self, point):
        """Copies both disks of the point out and has e2fsck look at them."""
        copies = []
        for disk in range(2):
            socket_path = self.work / f"export{disk}.sock"
            process = subprocess.Popen(
                [str(self.farshore.binary), "export", NAME, "--point", str(point["sequence"]),
                 "--disk", str(disk), "--socket", str(socket_path), "--data",
                 str(self.farshore.data), "--json"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=self.farshore.environment)
            try:
                process.stdout.readline()
                target = self.work / f"point-{disk}.img"
                size = int(subprocess.run(["nbdinfo", "--size", f"nbd+unix:///?socket={socket_path}"],
                                          capture_output=True, text=True, check=True).stdout)
                with open(target, "wb") as file:
                    file.truncate(size)
                subprocess.run(["nbdcopy", f"nbd+unix:///?socket={socket_path}", str(target)],
                               check=True, capture_output=True)
                copies.append(target)
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                process.stdout.close()
        wrong = guests.check_file_systems(copies, self.work,
                                          [self.guest_facts["root_offset_bytes"], 0])
        self.check(not wrong, "e2fsck finds nothing on the point's disks, read out over NBD"
                   if not wrong else f"e2fsck: {'; '.join(wrong)}")
        for copy in copies:
            copy.unlink()
        return not wrong

    def fail_over(self, killed_ms):
        if self.options.agent:
            self.stage.step("At the recovery site: farshore failover start --point latest")
        else:
            self.stage.step("At the recovery site: the vault starts; farshore failover start --point latest")
            self.farshore.start_vault()
        machine, job, first_read_ms, login_ms = self.recover("start", NAME, "--point", "latest")
        self.result["rto_first_read_ms"] = first_read_ms
        self.result["rto_login_ms"] = login_ms
        point = self.failover_of(job, "start")["point"]
        point_ms = ms_of(point["time"])
        # By the machine's clock where that dates the point.
        behind_ms = killed_ms - point_ms - (self.commit_clock() if self.options.agent else 0)
        self.result["behind_ms"] = round(behind_ms)
        self.stage.detail(f"first read after {first_read_ms} ms, login after {login_ms / 1000:.1f} s; the point "
                          f"is {behind_ms / 1000:.2f} s older than the disaster")
        least, most = self.expected_at(point_ms)
        recovered, sound = self.verify_machine(machine, least, most, "at the point's moment")
        committed = self.result["committed"]
        self.check(recovered <= committed + 1, "nothing is there that was not committed")
        self.result["recovered"] = recovered
        self.result["lost"] = max(0, committed - recovered)
        machine.close()
        sound = self.offline_check(point) and sound
        return point_ms, sound

    def earlier(self, point_ms):
        earlier_ms = int(point_ms) - EARLIER_S * 1000
        self.stage.step(f"Once more as it was {EARLIER_S} s earlier: {rfc3339(earlier_ms)}")
        try:
            verb = "test"
            machine, job, _, login_ms = self.recover("test", NAME, "--point", rfc3339(earlier_ms))
        except FarshoreError as error:
            if error.code != "wrong-state":
                raise
            self.stage.detail(f"a test failover is refused in this state; its point is changed instead ({error})")
            verb = "change-point"
            machine, job, _, login_ms = self.recover("change-point", NAME, "--point", rfc3339(earlier_ms))
        point = self.failover_of(job, verb)["point"]
        self.stage.detail(f"sequence {point['sequence']}, login after {login_ms / 1000:.1f} s")
        least, most = self.expected_at(earlier_ms)
        recovered, sound = self.verify_machine(machine, least, most, f"{EARLIER_S} s earlier")
        self.result["earlier_recovered"] = recovered
        self.result["earlier_reported"] = least
        machine.close()
        return sound

    def run(self):
        begun = time.monotonic()
        try:
            accelerator = self.prepare()
            # An agent's disk is in the guest from its start, and has what it needs to enrol.
            for start in ((self.start_farshore, self.start_source) if self.options.agent
                          else (self.start_source, self.start_farshore)):
                start(accelerator)
            sampler = self.protect()
            self.run_load(sampler)
            killed_ms = self.lose_site()
            point_ms, sound = self.fail_over(killed_ms)
            sound = self.earlier(point_ms) and sound
            self.result["integrity"] = "ok" if sound else "damaged"
            self.result["ok"] = all(ok for ok, _ in self.checks)
            self.result["seconds"] = round(time.monotonic() - begun)
        finally:
            self.stage.clear()
            self.clean_up()
        return self.result

    def clean_up(self):
        if self.source is not None and self.source.process is not None \
                and self.source.process.poll() is None:
            self.source.kill()
        if self.farshore is not None:
            self.farshore.end()
        if self.azurite is not None:
            self.azurite.stop()
        if self.s3_server is not None:
            self.s3_server.stop()
        failed = not self.result.get("ok")
        if self.options.keep or (failed and self.options.keep_failed):
            self.stage.detail(f"kept: {self.work}")
        elif self.work is not None:
            shutil.rmtree(self.work, ignore_errors=True)

    def summary(self):
        r = self.result
        lost = r["lost"]
        ratio = r["bytes_written"] / r["bytes_stored"] if r.get("bytes_stored") else 0
        rows = [
            ("Recovery point", f"RPO {r['rpo_ms_p50']} ms typical, {r['rpo_ms_p99']} ms at worst (p99)"),
            ("Recovery time", f"first read after {r['rto_first_read_ms']} ms, login after "
                              f"{r['rto_login_ms'] / 1000:.1f} s ({r['accelerator'].upper()})"),
            ("Transactions", f"{r['committed']} committed, {r['recovered']} recovered, "
                             + (f"{lost} lost: the last {r['behind_ms'] / 1000:.2f} s" if lost else "none lost")),
            (f"{EARLIER_S} s earlier", f"{r['earlier_recovered']} transactions, {r['earlier_reported']} reported by then"),
            ("Integrity", r["integrity"]),
            ("Captured, stored", f"{bytes_text(r['bytes_written'] or 0)} copied and written, "
                                f"{bytes_text(r['bytes_stored'] or 0)} in the store"
                                + (f" ({ratio:.1f} : 1)" if ratio else "")),
            ("Took", f"{r['seconds']} s"),
        ]
        width = max(len(text) for _, text in rows) + 22
        print("\n" + "─" * width)
        print(f"  The site was lost and '{NAME}' is back." if r["ok"] else "  Something is wrong:")
        for ok, text in self.checks:
            if not ok:
                print(f"    BAD {text}")
        print()
        for name, text in rows:
            print(f"  {name:<17} {text}")
        print("─" * width, flush=True)


def parse(arguments=None):
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--story", choices=["loss", "circle"], default="loss",
                        help="circle: two machines that belong together are protected, drilled, lost, recovered by a "
                             "plan, changed, brought home and protected again; of the other options it takes --json, "
                             "--compute, --rate, --point-interval, --accelerator, --work, --keep, --keep-failed and --binary")
    parser.add_argument("--compute", choices=["local", "libvirt"], default="local",
                        help="libvirt: the circle's machines run on a libvirt host at the recovery site")
    parser.add_argument("--report", metavar="DIR", type=pathlib.Path, default=HERE.parents[1] / "build/circle-report",
                        help="where the circle's report goes (build/circle-report)")
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="write the figures there")
    parser.add_argument("--split", action="store_true",
                        help="vault, appliance and agent as three processes")
    parser.add_argument("--agent", action="store_true",
                        help="captured from inside, by an agent in the machine, instead of by QEMU's mirror")
    parser.add_argument("--store", choices=["directory", "s3", "azure"], default="directory",
                        help="s3, azure: objects go to a radosgw or an Azurite that the demo starts")
    parser.add_argument("--seconds", type=int, default=40, help="of load under protection (40)")
    parser.add_argument("--rate", type=int, help="transactions a second, at most (40; of the circle 10)")
    parser.add_argument("--point-interval", type=int, default=5,
                        help="seconds between crash-consistent points (5)")
    parser.add_argument("--accelerator", choices=["kvm", "tcg"], help="do not try, use this one")
    parser.add_argument("--work", help="working directory (a temporary one)")
    parser.add_argument("--keep", action="store_true", help="keep the working directory")
    parser.add_argument("--keep-failed", action="store_true", help="keep it when something is wrong")
    parser.add_argument("--binary", type=pathlib.Path,
                        default=HERE.parents[1] / "build/release/bin/farshore")
    options = parser.parse_args(arguments)
    if options.story == "circle" and (options.agent or options.split or options.store != "directory"):
        parser.error("the circle has no --agent, --split or --store")
    if options.story != "circle" and options.compute != "local":
        parser.error("--compute goes with --story circle")
    options.rate = options.rate or (10 if options.story == "circle" else 40)
    if options.seconds <= EARLIER_S:
        parser.error(f"--seconds must be over {EARLIER_S}")
    if not options.binary.exists():
        parser.error(f"there is no {options.binary}: ./run build makes it")
    options.binary = options.binary.resolve()
    return options


def main():
    if os.geteuid() != 0:
        raise SystemExit("demo: needs root, to build the guest")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parse()
    demo = circle.Circle(options) if options.story == "circle" else Demo(options)
    try:
        demo.run()
    except (RuntimeError, guests.GuestError, FarshoreError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    demo.summary()
    if options.json:
        options.json.write_text(json.dumps(demo.result, indent=2) + "\n")
    sys.exit(0 if demo.result["ok"] else 1)


if __name__ == "__main__":
    main()
