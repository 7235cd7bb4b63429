#!/usr/bin/env bash
# Install qaeval into an environment of its own and put it on the path of the steps that follow.
#
#   QAEVAL_INSTALL      what pip installs: a folder, a wheel, or a requirement such as qaeval-harness==0.2.0; "none": it is on the runner
#   QAEVAL_PYTHON       the Python that makes the environment; python3 when left out
#   RUNNER_TEMP         where the environment goes
#   GITHUB_PATH         file that takes the path
set -euo pipefail

if [ "${QAEVAL_INSTALL:-none}" = none ]; then
  command -v qaeval >/dev/null || { echo "qaeval is not on the runner's path: leave install empty, or say what to install" >&2; exit 64; }
  qaeval models >/dev/null
  exit 0
fi

home="${RUNNER_TEMP:?}/qaeval"
"${QAEVAL_PYTHON:-python3}" -m venv "$home"
"$home/bin/python" -m pip --disable-pip-version-check install --quiet -- "$QAEVAL_INSTALL"
echo "$home/bin" >> "${GITHUB_PATH:-/dev/null}"
