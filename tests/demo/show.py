"""What a person sees of the demo: its steps, and figures in words."""
import datetime
import shutil
import sys
import time


class Stage:
    """What a person sees: a step with its time, and one line that is written over while it runs."""

    def __init__(self):
        self.started = time.monotonic()
        self.tty = sys.stdout.isatty()
        self._drawn = 0
        self._last_plain = 0.0

    def _clock(self):
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def clear(self):
        if self._drawn:
            sys.stdout.write("\r" + " " * self._drawn + "\r")
            self._drawn = 0

    def step(self, text):
        self.clear()
        bold, normal = ("\033[1m", "\033[0m") if self.tty else ("", "")
        print(f"[{self._clock():>5}] {bold}{text}{normal}", flush=True)

    def detail(self, text):
        self.clear()
        print(f"        {text}", flush=True)

    def live(self, text, every_s=5.0):
        """On a terminal in place; elsewhere a line now and then."""
        if self.tty:
            line = f"        {text}"[:shutil.get_terminal_size().columns - 1]
            sys.stdout.write("\r" + line + " " * max(0, self._drawn - len(line)))
            sys.stdout.flush()
            self._drawn = len(line)
        elif time.monotonic() - self._last_plain >= every_s:
            self._last_plain = time.monotonic()
            self.detail(text)


def percentile(values, percent):
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def bytes_text(count):
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def rfc3339(ms):
    moment = datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(ms) % 1000:03d}Z"


def ms_of(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000
