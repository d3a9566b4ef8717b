"""Applies each mutation of crates/barrier/tests/mutations.toml and shows which test catches it.

All mutations are compiled at once into a copy of the crate under the target directory, each behind a
condition, so that the crate is built once and not once for each of them. MUTATION then selects one.
Arguments: names of mutations to run; all of them without arguments. `--sample N` runs every Nth.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "crates/barrier/tests/mutations.toml"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
COPY = TARGET / "mutants"
# Seconds; the slowest level takes a tenth of it without a mutation on an idle machine.
LIMIT = 400

SELECT = """
/// Whether this mutation was selected.
pub(crate) fn mutated(number: usize) -> bool {
    static SELECTED: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| {
        let text = std::env::var("MUTATION").unwrap_or_default();
        text.parse().unwrap_or(usize::MAX)
    });
    *SELECTED == number
}
"""


def copy_sources():
    """A workspace with the crate and what it depends on."""
    for part in ("crates", "docs"):
        shutil.rmtree(COPY / part, ignore_errors=True)
    for part in ("crates/api", "crates/barrier", "docs/errors"):
        shutil.copytree(ROOT / part, COPY / part)
    shutil.copy(ROOT / "Cargo.lock", COPY)
    workspace = (ROOT / "Cargo.toml").read_text()
    members = 'members = ["crates/api", "crates/barrier"]'
    workspace = re.sub(r"members = \[[^\]]*\]", members, workspace, count=1)
    (COPY / "Cargo.toml").write_text(workspace)


def apply(mutations):
    """Writes every mutation into the copy; returns what no longer applies."""
    problems = []
    for number, mutation in enumerate(mutations):
        path = COPY / "crates/barrier/src" / mutation["file"]
        text = path.read_text()
        found = text.count(mutation["find"])
        if found != 1:
            problems.append(f"{mutation['name']}: its text occurs {found} times in {mutation['file']}")
            continue
        replacement = mutation["replace"].replace("MUTATED", f"crate::mutated({number})")
        path.write_text(text.replace(mutation["find"], replacement))
    library = COPY / "crates/barrier/src/lib.rs"
    library.write_text(library.read_text() + SELECT)
    return problems


def build():
    """The test binaries by the name of their target."""
    command = ["cargo", "test", "-p", "lockstep-barrier", "--no-run", "--message-format", "json"]
    # Its own directory: a crate at the same place in another workspace has the same file names.
    environment = {**os.environ, "CARGO_TARGET_DIR": str(COPY / "target")}
    built = subprocess.run(command, cwd=COPY, env=environment, stdout=subprocess.PIPE, text=True)
    if built.returncode:
        for line in built.stdout.splitlines():
            message = json.loads(line)
            if message.get("reason") == "compiler-message":
                print(message["message"]["rendered"], file=sys.stderr)
        sys.exit("the mutated crate doesn't compile")
    binaries = {}
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and "lockstep-barrier" in message["package_id"]:
            binaries[message["target"]["name"]] = message["executable"]
    return binaries


def levels(binaries):
    """What is run for a mutation, in this order. Recorded transcripts don't count."""
    unit, barrier = binaries["lockstep_barrier"], binaries["barrier"]
    return [
        ("unit tests", [unit]),
        ("rejections", [barrier, "rejections::"]),
        ("scenarios", [barrier, "transcripts::no_scenario_breaks_an_invariant"]),
        ("two runs", [barrier, "exploration::two_runs::"]),
        ("exploration", [barrier, "exploration::mutants", "--ignored"]),
        ("properties", [barrier, "property::"]),
    ]


def run(command, number):
    """What the tests found with a mutation, or None."""
    environment = {**os.environ, "MUTATION": str(number), "RUST_BACKTRACE": "0"}
    regressions = COPY / "crates/barrier/tests/barrier/property/regressions.txt"
    known = regressions.read_text()
    try:
        result = subprocess.run(
            command, cwd=COPY / "crates/barrier", env=environment, capture_output=True, text=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return "it never ended"
    finally:
        regressions.write_text(known)
    if result.returncode == 0:
        return None
    return counterexample(result.stdout + result.stderr)


def counterexample(output):
    broken = re.search(r"([\w-]+\.txt: |[\w-]+ \[.*?\]: )?invariant (\w+) is broken", output)
    if broken:
        where = (broken.group(1) or "").rstrip(": ")
        return f"{broken.group(2)} {where}".strip()
    failed = re.search(r"^test (\S+) \.\.\. FAILED", output, re.MULTILINE)
    panic = re.search(r"panicked at [^\n]*\n([^\n]*)", output)
    name = failed.group(1).rsplit("::", 1)[-1] if failed else "the process"
    return f"{name}: {panic.group(1)[:60]}" if panic else name


def main():
    mutations = tomllib.loads(TABLE.read_text())["mutation"]
    wanted = sys.argv[1:]
    every = 1
    if wanted[:1] == ["--sample"]:
        every, wanted = int(wanted[1]), []
    copy_sources()
    problems = apply(mutations)
    if problems:
        sys.exit("\n".join(["these mutations no longer apply:", *problems]))
    binaries = build()
    if found := [name for name, command in levels(binaries) if run(command, "none")]:
        sys.exit(f"without any mutation, these fail: {', '.join(found)}")
    uncaught = []
    print(f"{'mutation':<46} {'hole':>4}  {'caught by':<12} counterexample")
    for number, mutation in enumerate(mutations):
        name = mutation["name"]
        if (wanted and name not in wanted) or number % every:
            continue
        level, found = "-", None
        for level, command in levels(binaries):
            if found := run(command, number):
                break
        if not found:
            level, found = "NOTHING", ""
            uncaught.append(name)
        print(f"{name:<46} {mutation.get('hole', ''):>4}  {level:<12} {found}", flush=True)
    if uncaught:
        sys.exit(f"not caught: {', '.join(uncaught)}")


main()
