"""What this project is made of, and what is known against it.

    python tests/supply.py sbom [FILE]     a CycloneDX bill of materials of the environment: every package, its version
    python tests/supply.py audit           pip-audit over the environment; says how much of it could be looked up

``audit`` ends with 0 when every package was looked up and nothing is known against any, with 1 when something is, and
with 2 when the databases could not be reached for some package: that is no pass, and it says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATABASES = ("pypi", "osv")  # the second where the first cannot be reached
# Findings that do not concern this project: identifier → why.
EXPLAINED: dict[str, str] = {}


def sbom(file: Path, validate: bool = True) -> dict:
    """Write the bill of materials, the same for the same environment; the document. validate: against the schema."""
    words = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--pyproject",
        str(ROOT / "pyproject.toml"),
    ]
    words += [
        "--validate" if validate else "--no-validate",
        "--output-reproducible",
        "--output-file",
        str(file),
        sys.executable,
    ]
    subprocess.run(words, check=True, capture_output=True)
    return json.loads(file.read_text("utf-8"))


def audit(database: str) -> list[dict]:
    """pip-audit's answer for every installed package but this one; empty where it gave none."""
    words = [
        sys.executable,
        "-m",
        "pip_audit",
        "--local",
        "--skip-editable",
        "--progress-spinner",
        "off",
    ]
    done = subprocess.run(
        [*words, "--format", "json", "-s", database], capture_output=True, text=True
    )
    try:
        return json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return []


def judged(packages: list[dict]) -> tuple[int, str]:
    """Exit code and what to print. packages: as pip-audit tells them, ``vulns`` or ``skip_reason`` in each."""
    packages = [package for package in packages if package["name"] != "zdce"]
    known = [package for package in packages if "vulns" in package]
    found = [(package, each) for package in known for each in package["vulns"]]
    lines = [
        f"{package['name']} {package['version']}: {each['id']}"
        + (f" (explained: {EXPLAINED[each['id']]})" if each["id"] in EXPLAINED else "")
        + (f", mended in {', '.join(each['fix_versions'])}" if each.get("fix_versions") else "")
        for package, each in found
    ]
    if any(each["id"] not in EXPLAINED for _, each in found):
        return 1, "\n".join([*lines, f"FOUND: {len(found)} in {len(known)} packages"])
    if len(known) < len(packages) or not packages:
        missing = (
            f"{len(packages) - len(known)} of {len(packages)} packages"
            if packages
            else "any package"
        )
        return 2, "\n".join(
            [*lines, f"NOT AUDITED: no database of vulnerabilities could be asked about {missing}"]
        )
    return 0, "\n".join([*lines, f"{len(known)} packages looked up, nothing known against them"])


def main() -> None:
    what, *rest = sys.argv[1:] or ["help"]
    if what == "sbom":
        file = Path(rest[0] if rest else "sbom.cdx.json")
        print(f"{file}: {len(sbom(file)['components'])} packages")
    elif what == "audit":
        code, said = 2, ""
        for database in DATABASES:
            code, said = judged(audit(database))
            if code < 2:
                break
        print(said)
        sys.exit(code)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
