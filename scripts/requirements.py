"""Print requirements that pip cannot be asked for directly, one a line.

Owns two readings: a dependency group of pyproject.toml (pip knows `--group` only since 25.1), and what a
wheel declares, less the torch family's builds that vLLM does not need and that break it on
a CPU.
Runs on any Python from 3.10 with nothing but the pip beside it.
"""

import sys
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

from pip._vendor.packaging.requirements import Requirement

LEFT_OUT = frozenset({"torchvision", "torchaudio", "torchcodec"})


def group(name: str, pyproject: Path) -> list[str]:
    """Return the requirements of one dependency group."""
    try:
        import tomllib  # noqa: PLC0415  (came with 3.11)
    except ModuleNotFoundError:
        from pip._vendor import tomli as tomllib  # noqa: PLC0415  (pip brings it where Python lacks it)
    return list(tomllib.loads(pyproject.read_text(encoding="utf-8"))["dependency-groups"][name])


def wheel(path: Path) -> list[str]:
    """Return what a wheel declares for this machine, markers evaluated, less LEFT_OUT."""
    with ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        declared = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    requirements = [Requirement(text) for text in declared]
    wanted = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [_plain(r) for r in wanted if r.name.lower() not in LEFT_OUT]


def _plain(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def main() -> None:
    """Read the arguments: `group NAME PYPROJECT` or `wheel FILE`."""
    what, *rest = sys.argv[1:]
    lines = group(rest[0], Path(rest[1])) if what == "group" else wheel(Path(rest[0]))
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
