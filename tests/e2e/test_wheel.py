"""The wheel works alone, outside of any checkout: this is how users of Windows start."""

import subprocess
import sys
from pathlib import Path

import pytest
import uv

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.timeout(300)
def test_it_is_built_installed_elsewhere_and_serves(tmp_path: Path) -> None:
    tool = uv.find_uv_bin()
    run(tool, "build", "-q", "--wheel", "--out-dir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    base = getattr(sys, "_base_executable", None) or sys.executable
    run(tool, "venv", "-q", "--python", base, "clean", cwd=tmp_path)
    scripts = tmp_path / "clean" / ("Scripts" if sys.platform == "win32" else "bin")
    named = f"openbell[local] @ {wheel.as_uri()}"
    run(tool, "pip", "install", "-q", "--python", scripts / "python", named, cwd=tmp_path)
    report = run(scripts / "openbell", "doctor", "--smoke", cwd=tmp_path)
    assert "first line of the script" in report
