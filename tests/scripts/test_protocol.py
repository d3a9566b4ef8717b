"""The wire protocol may grow; what agents in the field rely on may not go."""

import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
BUF = ROOT / ".tools/node/node_modules/.bin/buf"
FIELD = "  uint64 journal_position = 4;"


def breaking(protocol):
    """buf's findings for a copy of the protocol, against the committed image."""
    command = [BUF, "breaking", "--against", ROOT / "proto/image.binpb"]
    return subprocess.run(command, cwd=protocol, capture_output=True, text=True, check=False)


def copy(tmp_path):
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    for source in (ROOT / "proto").rglob("*.proto"):
        target = tmp_path / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    return tmp_path / "proto/lockstep/v1/agent.proto"


def test_the_committed_protocol_breaks_nothing(tmp_path):
    copy(tmp_path)
    assert breaking(tmp_path).returncode == 0


def test_a_removed_field_is_found(tmp_path):
    agent = copy(tmp_path)
    text = agent.read_text()
    assert FIELD in text
    agent.write_text(text.replace(FIELD, ""))
    result = breaking(tmp_path)
    assert result.returncode != 0
    assert "journal_position" in result.stdout
