"""The whole circle, `./run demo --story circle`: two Debian machines, a database and the application that
uses it, are protected together, drilled, lost, recovered in order by a plan, changed at the recovery site,
reprotected, brought home, and protected again. Transactions are counted at each stage; a report is written.

The application reports each transaction on its serial line after its commit was acknowledged over the
network, and keeps on its own disk which it began and of which it was told. So what it says, what it has and
what the database has must fit wherever the two are started from a point that they share."""
import contextlib
import html
import json
import pathlib
import shutil
import subprocess
import tempfile
import time

import build_image
import guest as guests
import shop
from farshore import Farshore, FarshoreError, free_port
from libvirtd import Libvirtd
from show import Stage, bytes_text, ms_of

PLAN = "shop"
NAMES = ("db", "app")
LONG_S = 2400    # for one thing that the machines do, emulated, beside others
# Of a failover; a test's machines are on a closed segment of their own.
NETWORK = 'network: "segment:shop"'

PLAN_TEXT = f"""
name: {PLAN}
description: The database first, then the application that uses it
{{network}}
groups:
  - name: database
    items:
      - {{{{name: db, limit_s: {LONG_S}}}}}
    after:
      - {{{{name: the database answers, kind: guest-script, item: db, program: /usr/local/bin/wait-for-db,
         arguments: [/run/postgresql], for: [test, failover], limit_s: {LONG_S}}}}}
  - name: application
    items:
      - {{{{name: app, limit_s: {LONG_S}}}}}
    after:
      - {{{{name: the application reaches the database, kind: guest-script, item: app, program: /usr/local/bin/wait-for-db,
         arguments: ["{shop.Database.ADDRESS}"], for: [test, failover], limit_s: {LONG_S}}}}}
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The circle</title><style>
:root{{color-scheme:light dark}}body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}}
table{{border-collapse:collapse;width:100%}}th,td{{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #8884;vertical-align:top}}
td.n{{text-align:right;font-variant-numeric:tabular-nums}}.ok{{color:#1a7f37}}.bad{{color:#cf222e}}</style></head><body>
<h1>Two machines around the circle: <span class="{cls}">{verdict}</span></h1>
<p>{words}</p>
<h2>Stages</h2><table><tr><th>Begun</th><th>Stage</th><th>Lasted</th><th>Transactions</th><th>What was seen</th></tr>
{stages}</table>
<h2>Runs of the recovery plan</h2><ul>{runs}</ul>
<h2>Checks</h2><ul>{checks}</ul>
</body></html>
"""


class CircleError(RuntimeError):
    pass


class Circle:
    def __init__(self, options):
        self.options = options
        self.show = Stage()
        self.report = pathlib.Path(options.report)
        self.result = {"ok": False, "stages": [], "checks": [], "runs": []}
        self.work = None
        self.farshore = None
        self.libvirtd = None     # that runs the machines at the recovery site
        self.run_directory = None
        self.guests = []         # db, app: at home
        self.home = None         # Shop of them
        self.away = None         # Shop at the recovery site
        self.facts = {}
        self.stage_row = None

    # --- stages ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def stage(self, name, text):
        """A row of the report. What fails in it is told with its name."""
        self.show.step(text)
        row = {"stage": name, "begun_s": round(time.monotonic() - self.show.started, 1), "transactions": None, "seen": []}
        self.stage_row = row
        self.result["stages"].append(row)
        begun = time.monotonic()
        try:
            yield row
        except (RuntimeError, OSError, guests.GuestError, FarshoreError, subprocess.SubprocessError) as error:
            row["failed"] = str(error)
            raise CircleError(f"in stage '{name}': {error}") from error
        finally:
            row["seconds"] = round(time.monotonic() - begun, 1)
            self.show.clear()

    def seen(self, text):
        self.stage_row["seen"].append(text)
        self.show.detail(text)

    def check(self, ok, text):
        self.result["checks"].append({"ok": bool(ok), "stage": self.stage_row["stage"], "what": text})
        self.seen(f"{'ok  ' if ok else 'BAD '}{text}")

    def counted(self, transactions):
        self.stage_row["transactions"] = transactions

    def wait(self, what, condition, live=None, timeout_s=LONG_S):
        return self.farshore.wait_for(what, condition, timeout_s, 0.5, live)

    def wait_states(self, state):
        """Both items are in it."""
        found = {}

        def there():
            for name in NAMES:
                found[name] = self.farshore.call("item", name)
            return all(item["state"] == state for item in found.values())

        def live():
            self.show.live("; ".join(self.progress(name, item) for name, item in found.items()), 20)

        return self.wait(f"db and app are {state}", there, live)

    @staticmethod
    def progress(name, item):
        copied, total = item.get("copied_bytes"), item.get("copy_total_bytes")
        home = item.get("way_home", {}).get("home", {})
        if home.get("total_bytes"):
            copied, total = home.get("compared_bytes"), home["total_bytes"]
        share = f" {100 * (copied or 0) // total} %" if total else ""
        troubles = ", ".join(trouble["code"] for trouble in item.get("troubles") or [])
        return f"{name} {item['state']}{share}{' (' + troubles + ')' if troubles else ''}"

    def more(self, line, count):
        """That many more transactions were reported there; the newest's number."""
        line.wait_for_transactions(len(line.transactions) + count, shop.READY_S)
        return line.reported()

    def examine(self, place, where):
        count, wrong = place.examine(self.facts)
        self.check(not wrong, f"{where}: journals, pg_amcheck, checksums and sums of all accounts are sound; "
                              "what the application has fits the database" if not wrong else f"{where}: {'; '.join(wrong)}")
        self.counted(count)
        return count

    # --- shared points -----------------------------------------------------------------------

    def newest_shared(self, since_ms=0):
        """The newest stored shared point that was made after that moment, or None."""
        for point in self.farshore.call("group", "points", PLAN)["points"]:
            if point["state"] == "stored" and ms_of(point["made"]) >= since_ms:
                return point
        return None

    def wait_shared(self):
        begun_ms = time.time() * 1000
        return self.wait("a shared point", lambda: self.newest_shared(begun_ms),
                         lambda: self.show.live("waiting for a point that both share", 20))

    @staticmethod
    def moment_ms(point):
        return min(ms_of(member["point"]["time"]) for member in point["members"])

    # --- the plan ----------------------------------------------------------------------------

    def run_plan(self, name, mode, *options):
        """Runs it to its end; keeps its report; the run."""
        run = self.farshore.call("recovery-plan", "start", PLAN, "--mode", mode, "--no-wait", *options)
        found = {}

        def over():
            found.update(self.farshore.call("recovery-plan", "run", "show", run["id"]))
            return found["state"] in ("succeeded", "incomplete", "stopped", "cancelled")

        def live():
            under_way = [step["name"] for step in found.get("steps", []) if step["state"] == "running"]
            self.show.live(f"run {run['id']}: {', '.join(under_way) or found.get('state', '…')}", 20)

        try:
            self.wait(f"the plan's {mode} run ends", over, live, 4 * LONG_S)
        finally:
            self.keep_run(name, run["id"])
        for step in found["steps"]:
            self.seen(f"{step['kind']} {step['name']}: {step['state']}"
                      + (f" in {step['duration_ms'] / 1000:.1f} s" if "duration_ms" in step else "")
                      + (f": {step['error'].get('detail')}" if "error" in step else ""))
        if found["state"] != "succeeded":
            raise CircleError(f"run {run['id']} of the plan is {found['state']}: {found.get('why', '')}")
        machines = [step for step in found["steps"] if step["kind"] == "item"]
        self.check([step["name"] for step in machines] == list(NAMES)
                   and ms_of(machines[0]["ended"]) <= ms_of(machines[1]["started"]),
                   "in order: the database, then the application")
        return found

    def keep_run(self, name, run):
        """The run's report, as Farshore tells it, as JSON and as a page."""
        document = self.farshore.call("recovery-plan", "run", "report", run)
        (self.report / f"plan-{name}.json").write_text(json.dumps(document, indent=2) + "\n")
        page = subprocess.run([str(self.farshore.binary), "recovery-plan", "run", "report", str(run), "--data",
                               str(self.farshore.data)], capture_output=True, text=True, check=True,
                              env=self.farshore.environment).stdout
        (self.report / f"plan-{name}.html").write_text(page)
        self.result["runs"].append({"name": name, "run": run, "html": f"plan-{name}.html", "json": f"plan-{name}.json"})

    def machines(self, kind):
        """The shop that Farshore started."""
        lines = []
        for name in NAMES:
            [failover] = [one for one in self.farshore.call("failover", "list", name)["failovers"] if one["kind"] == kind]
            # Of the jobs of this item, the one that started it.
            results = [job.get("result") or {} for job in self.farshore.call("jobs", "--item", name)["jobs"]]
            access = next(result for result in results if result.get("id") == failover["id"] and "serial_log" in result)
            lines.append(guests.RecoveredMachine(access["serial_log"], access["serial_socket"]))
        place = shop.Shop(*lines)
        place.wait_ready()
        return place

    # --- the story ---------------------------------------------------------------------------

    def prepare(self):
        self.work = pathlib.Path(self.options.work or tempfile.mkdtemp(prefix="farshore-circle-"))
        self.work.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.report, ignore_errors=True)
        self.report.mkdir(parents=True)
        image = build_image.ensure()
        self.facts = json.loads((image / "guest.json").read_text())
        accelerator = self.options.accelerator or guests.pick_accelerator(image, image.parent)
        self.result["accelerator"] = accelerator
        port = free_port()
        self.guests = [kind(image, self.work / kind.NAME, accelerator, port, self.facts["root_offset_bytes"])
                       for kind in (shop.Database, shop.Application)]
        self.farshore = Farshore(self.options.binary, self.work / "recovery-site", self.work / "logs",
                                 {"FARSHORE_ACCEL": accelerator})

    def start_home(self):
        for guest in self.guests:
            guest.start()
        self.home = shop.Shop(*(guest.serial for guest in self.guests))
        self.home.wait_ready()

    def begin(self):
        words = "KVM" if self.result["accelerator"] == "kvm" else "emulation (TCG)"
        with self.stage("start", f"Starting two Debian machines by {words}: 'db' (PostgreSQL) and 'app', which uses it"):
            self.start_home()
            self.seen("both are up, on a segment of their own with static addresses")
            self.home.open(self.options.rate)
            self.counted(self.more(self.home.app, 20))
            self.seen("the application commits transactions over the network and reports each when it is acknowledged")

    def protect(self):
        with self.stage("protect", "Farshore: a vault at the recovery site, an appliance and an agent at home; "
                                   "both machines are protected as they run"):
            self.start_farshore()
            for guest in self.guests:
                self.farshore.call("protect", guest.NAME, "--qmp", guest.qmp_path, "--point-interval",
                                   self.options.point_interval)
            self.wait_states("protected")
            if self.libvirtd is not None:
                for name in NAMES:
                    self.farshore.call("item", "compute", name, "rack")
            self.counted(self.home.app.reported())
            self.farshore.call("group", "create", PLAN, *NAMES, "--crash-interval", 10)
            point = self.wait_shared()
            self.seen(f"the first shared point: {point['label']}, writes were held for {point['barrier_us'] / 1000:.1f} ms")
            self.counted(self.home.app.reported())

    def start_farshore(self):
        if self.options.compute == "local":
            self.farshore.start_split(self.work / "source-site")
            return
        # Of another user: its QEMU must get at the disks, and at nothing else.
        self.work.chmod(0o711)
        self.libvirtd = Libvirtd(self.work / "libvirtd")
        self.run_directory = pathlib.Path(tempfile.mkdtemp(prefix="farshore-", dir="/run"))
        self.farshore.start_split(self.work / "source-site", "--run-directory", self.run_directory)
        self.farshore.call("compute", "add", "rack", "--uri", self.libvirtd.uri, "--accelerator",
                           self.result["accelerator"])
        host = self.farshore.call("compute", "check", "rack")
        self.seen(f"the recovery site's machines run on a libvirt host: libvirt {host['libvirt_version']}, "
                  f"QEMU {host['hypervisor_version']}")

    def left_machines(self):
        if self.libvirtd is not None:
            return self.libvirtd.domains()
        return [line for _, line in self.farshore.descendants() if "qemu-system" in line]

    def plan(self):
        path = self.work / "shop.yaml"
        path.write_text(PLAN_TEXT.format(network=NETWORK))
        self.farshore.call("recovery-plan", "import", path)
        shutil.copy(path, self.report / "shop.yaml")

    def drill(self, name, text):
        """A test of the plan beside production, at the newest shared point."""
        with self.stage(name, text):
            point = self.wait_shared()
            least, before = self.home.app.reported(self.moment_ms(point)), self.home.app.reported()
            run = self.run_plan(name, "test", "--point", f"shared:{point['id']}", "--note", "the circle's drill")
            place = self.machines("test")
            found = place.open(self.options.rate)
            self.check(least <= found <= before + 1, f"the copies have {found} transactions; {least} had been "
                                                     "acknowledged at the point's moment")
            last = self.more(place.app, 10)
            place.close()
            count = self.examine(place, "the copies")
            self.check(count >= last and last > found,
                       f"the application's copy added {last - found} transactions to the database's copy")
            place.let_go()
            self.farshore.call("recovery-plan", "run", "cleanup", run["id"], timeout_s=600)
            self.check(not self.left_machines(), "the test left no machine")
            now = self.more(self.home.app, 5)
            # A transaction of the copies would have taken the next number.
            self.check(now > before and not self.home.broken(),
                       f"production went on meanwhile, from {before} to {now}, and had none of it")

    def lose(self):
        with self.stage("loss", "The site is lost: SIGKILL to both machines, to taps, agent and appliance, in the middle "
                                "of the load"):
            self.more(self.home.app, 20)
            self.wait_shared()
            self.more(self.home.app, 10)
            for guest in self.guests:
                guest.process.kill()
            for guest in self.guests:
                guest.kill()
            self.farshore.kill_servers("agent", "appliance")
            self.farshore.kill_descendants("nbdkit")
            self.counted(self.home.app.reported())
            self.seen(f"acknowledged until then: {self.home.app.reported()} transactions")

    def recover(self):
        with self.stage("recovery", "At the recovery site: the plan as a failover, at the newest shared point"):
            point = self.newest_shared()
            committed = self.home.app.reported()
            least = self.home.app.reported(self.moment_ms(point))
            self.run_plan("failover", "failover", "--point", f"shared:{point['id']}", "--note", "the site is lost")
            self.away = self.machines("failover")
            count = self.examine(self.away, "at the recovery site")
            self.check(least <= count <= committed + 1,
                       f"{count} transactions; {least} had been acknowledged at the point's moment, {committed} at the loss")
            self.result["lost"] = max(0, committed - count)
            self.seen(f"lost with the site: {self.result['lost']}, those of its last seconds")
            return count

    def go_on(self, count):
        with self.stage("change", "The shop is open at the recovery site; the failover is committed"):
            found = self.away.open(self.options.rate)
            self.check(found == count, f"it goes on from {found}")
            self.counted(self.more(self.away.app, 30))
            for name in NAMES:
                self.succeed("failover", "commit", name)

    def succeed(self, *words):
        job = self.farshore.call(*words, timeout_s=LONG_S)
        if job and job.get("state") not in (None, "succeeded"):
            raise CircleError(f"{' '.join(words)}: {job['state']}: {json.dumps(job.get('error'))}")

    def reprotect(self):
        with self.stage("reprotect", "The site is there again; farshore reprotect: both are protected where they run, "
                                     "their homes follow"):
            for kind in ("appliance", "agent"):
                self.farshore.restart_server(kind)
            before = self.away.app.reported()
            for name in NAMES:
                self.farshore.call("reprotect", name, "--no-wait")
            self.wait_states("reverse-protected")
            for name in NAMES:
                item = self.farshore.call("item", name)
                size = sum(disk["size_bytes"] for disk in item["disks"])
                self.seen(f"{name}: {bytes_text(item['way_home']['home']['differing_bytes'])} of {bytes_text(size)} "
                          "differed from what was at home")
            self.seen(f"a shared point of where they run: {self.wait_shared()['label']}")
            self.counted(self.more(self.away.app, 20))
            self.check(not self.away.broken() and self.away.app.reported() > before,
                       f"the application went on, from {before} to {self.away.app.reported()}")

    def fail_back(self):
        with self.stage("failback", "The plan as a failback: shut down here, brought home with what differs"):
            self.away.close()
            count = self.examine(self.away, "before the machines leave")
            self.run_plan("failback", "failback", "--note", "home again")
            self.away.let_go()
            self.away = None
            self.start_home()
            self.seen("both are up at home")
            found = self.examine(self.home, "at home")
            self.check(found == count, f"{found} transactions at home, {count} there when the machines left")
            return count

    def protect_again(self, count):
        with self.stage("protect-again", "farshore failback commit: protected at home as before"):
            for name in NAMES:
                self.succeed("failback", "commit", name)
            found = self.home.open(self.options.rate)
            self.check(found == count, f"it goes on from {found}")
            self.wait_states("protected")
            self.more(self.home.app, 20)
            point = self.wait_shared()
            self.counted(self.home.app.reported())
            self.seen(f"a new shared point: {point['label']}")

    def run(self):
        begun = time.monotonic()
        try:
            self.prepare()
            self.begin()
            self.protect()
            self.plan()
            self.drill("drill", "A drill of the plan at a shared point: copies of both, in order, on a segment of their own")
            self.lose()
            count = self.recover()
            self.go_on(count)
            self.reprotect()
            count = self.fail_back()
            self.protect_again(count)
            self.drill("last-drill", "The new point is tried as the first was")
            self.result["ok"] = all(check["ok"] for check in self.result["checks"])
        except BaseException as error:
            self.result["error"] = str(error) if isinstance(error, Exception) else f"it was ended ({type(error).__name__})"
            raise
        finally:
            self.result["seconds"] = round(time.monotonic() - begun)
            self.show.clear()
            self.clean_up()
        return self.result

    # --- the end -----------------------------------------------------------------------------

    def clean_up(self):
        for guest in self.guests:
            if guest.process is not None and guest.process.poll() is None:
                guest.kill()
        if self.farshore is not None:
            self.farshore.end()
        if self.libvirtd is not None:
            self.libvirtd.stop()
        if self.run_directory is not None:
            shutil.rmtree(self.run_directory, ignore_errors=True)
        failed = not self.result["ok"]
        if self.report.is_dir():
            if failed:
                self.keep_logs()
            self.write_report()
        if self.options.keep or (failed and self.options.keep_failed):
            self.show.detail(f"kept: {self.work}")
        elif self.work is not None:
            shutil.rmtree(self.work, ignore_errors=True)

    def keep_logs(self):
        """What Farshore's parts, the machines and their QEMUs said."""
        target = self.report / "logs"
        target.mkdir(exist_ok=True)
        for path in [*self.work.rglob("*.log")]:
            with contextlib.suppress(OSError):
                shutil.copy(path, target / "-".join(path.relative_to(self.work).parts))
        self.show.detail(f"logs: {target}")

    def write_report(self):
        (self.report / "circle.json").write_text(json.dumps(self.result, indent=2) + "\n")
        text = html.escape
        stages = "".join(
            f"<tr><td class=n>{row['begun_s']:.0f} s</td><td>{text(row['stage'])}</td><td class=n>{row['seconds']:.0f} s</td>"
            f"<td class=n>{'' if row['transactions'] is None else row['transactions']}</td>"
            f"<td>{'<br>'.join(text(line) for line in row['seen'])}"
            + (f"<br><b class=bad>{text(row['failed'])}</b>" if "failed" in row else "") + "</td></tr>\n"
            for row in self.result["stages"])
        runs = "".join(f"<li><a href=\"{run['html']}\">{text(run['name'])}</a> (<a href=\"{run['json']}\">JSON</a>)</li>"
                       for run in self.result["runs"])
        checks = "".join(f"<li class={'ok' if one['ok'] else 'bad'}>{text(one['stage'])}: {text(one['what'])}</li>"
                         for one in self.result["checks"])
        ok = self.result["ok"]
        (self.report / "circle.html").write_text(PAGE.format(
            cls="ok" if ok else "bad", verdict="all is well" if ok else "something is wrong",
            words=text(self.result.get("error") or "A database and the application that uses it were protected, drilled, "
                                                   "lost, recovered, changed, brought home and protected again."),
            stages=stages, runs=runs, checks=checks))

    def summary(self):
        rows = self.result["stages"]
        width = 64
        print("\n" + "─" * width)
        print("  Two machines went around the circle." if self.result["ok"] else "  Something is wrong:")
        for check in self.result["checks"]:
            if not check["ok"]:
                print(f"    BAD {check['stage']}: {check['what']}")
        print(f"\n  {'stage':<16} {'took':>9} {'transactions':>14}")
        for row in rows:
            print(f"  {row['stage']:<16} {row['seconds']:>7.0f} s {row['transactions'] or '':>14}")
        print(f"  {'all':<16} {self.result['seconds']:>7} s")
        print(f"\n  Report: {self.report / 'circle.html'}")
        print("─" * width, flush=True)
