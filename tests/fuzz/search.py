"""Search with atheris, guided by coverage: search.py TARGET SECONDS [FOLDER OF FOUND CASES]."""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["qaeval"]):
    from fuzz.targets import TARGETS

name, seconds, *more = sys.argv[1:]
corpus = Path(__file__).parent / "corpus" / name
found = Path(more[0]) if more else Path(".fuzz") / name
found.mkdir(parents=True, exist_ok=True)
options = [
    f"-max_total_time={seconds}",
    "-timeout=10",
    "-max_len=4096",
    "-verbosity=0",
    "-print_final_stats=1",
    "-rss_limit_mb=2048",
]
atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={found}/", str(found), str(corpus)], TARGETS[name])
atheris.Fuzz()
