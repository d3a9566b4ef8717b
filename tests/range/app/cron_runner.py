"""A small cron: runs every crontab of a directory once a "minute".

Only lines that say `* * * * * USER COMMAND` are understood; anything else is
reported and left out, never guessed at. The directory is read anew each time,
as cron does it, so a crontab that was moved away is not run any more. Files
with a dot in their name are ignored, as Debian's cron ignores them in
/etc/cron.d.
"""

import argparse
import pathlib
import signal
import subprocess
import sys
import threading


def commands(text):
    """The commands of a crontab, and the lines that aren't understood."""
    found, strange = [], []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split(None, 6)
        if len(fields) == 7 and fields[:5] == ["*"] * 5:
            found.append(fields[6])
        else:
            strange.append(line)
    return found, strange


def run_once(directory):
    """Runs what the crontabs hold, one after the other."""
    for path in sorted(pathlib.Path(directory).iterdir()):
        if "." in path.name or not path.is_file():
            continue
        found, strange = commands(path.read_text())
        for line in strange:
            print(f"{path}: not understood: {line}", flush=True)
        for command in found:
            status = subprocess.run(["/bin/sh", "-c", command], check=False).returncode
            print(f"{path}: status {status}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--minute", type=float, default=60.0, help="seconds that make a minute")
    args = parser.parse_args()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    while not stopping.wait(args.minute):
        run_once(args.directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
