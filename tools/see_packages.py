"""Let the environment of this interpreter see the packages of another one, after its own.

.venv-ray/bin/python tools/see_packages.py .venv
"""

import sys
import sysconfig
from pathlib import Path


def main() -> None:
    """Write a ``.pth`` file; the other environment's own ones, as of editable installs, hold too."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = Path(sys.argv[1]).resolve() / "lib" / version / "site-packages"
    if not packages.is_dir():
        raise SystemExit(f"{packages}: no such folder; both environments need one version of Python")
    own = Path(sysconfig.get_path("purelib"), "packages_of_another_environment.pth")
    own.write_text(f"import site; site.addsitedir({str(packages)!r})\n")


if __name__ == "__main__":
    main()
