"""Style rules that rustfmt and clippy don't check.

- One block of imports: no blank line between two `use` declarations.
- A doc comment says more than the name does: three plain words don't. A foreign name, a link, a
  unit or a number in it is more; and where doc comments are shown to users (clap's help, the
  schema's descriptions) short ones are right.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Derives whose doc comments are text for users.
SHOWN = re.compile(r"\b(Parser|Subcommand|ValueEnum|Args|JsonSchema)\b")
PLAIN = re.compile(r"[A-Za-z]?[a-z'’-]*[.,:;]?")
SPLIT_IMPORTS = re.compile(r"^( *)use [^;]+;\n(?:[ \t]*\n)+(?=\1use )", re.MULTILINE)
DOC = re.compile(r"^ *///(?!/) ?(.*)$")


def split_imports(text):
    """Line numbers of blank lines between two `use` declarations of one scope."""
    for match in SPLIT_IMPORTS.finditer(text):
        yield text.count("\n", 0, match.start()) + 1 + match.group(0).count("\n") - 1


def filler_docs(text):
    """Line numbers of doc comments of three words or fewer."""
    if SHOWN.search(text):
        return
    block, start = [], 0
    for number, line in enumerate(text.splitlines(), 1):
        doc = DOC.match(line)
        if doc:
            start = start if block else number
            block.append(doc.group(1))
        elif block:
            words = " ".join(block).split()
            if len(words) <= 3 and all(PLAIN.fullmatch(word) for word in words):
                yield start
            block = []


def problems(path, text):
    for line in split_imports(text):
        yield f"{path}:{line}: a blank line inside the imports"
    for line in filler_docs(text):
        yield f"{path}:{line}: a doc comment of three words: say more, or remove it"


def main():
    listed = subprocess.run(
        ["git", "ls-files", "*.rs"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    found = [
        problem
        for path in listed.stdout.split()
        for problem in problems(path, (ROOT / path).read_text())
    ]
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
