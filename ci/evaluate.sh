#!/usr/bin/env bash
# Have the models write their items, have the judge grade them, write the report: one run. A sequential gate grades for itself.
#
#   QAEVAL_MODELS       names from the registry, with spaces or line ends between
#   QAEVAL_RUN          run directory to make
#   QAEVAL_EVAL, QAEVAL_JUDGE, QAEVAL_RUBRIC, QAEVAL_CONFIG, QAEVAL_N, QAEVAL_SEED
#                       as the options of qaeval compare; what is empty is left out
#   QAEVAL_ENDPOINTS    NAME=URL, with spaces or line ends between
#   QAEVAL_SEQUENTIAL   true: only generate
set -euo pipefail

if [ "${GITHUB_ACTIONS:-}" = true ]; then # GitHub obeys lines of a log; what models, files and servers say stands in this one
  token=$(mktemp -u XXXXXXXXXXXXXXXXXXXXXXXX)
  exec 2>&1
  echo "::stop-commands::$token"
  trap 'echo "::$token::"' EXIT
fi

words() { # split a value at blanks and line ends, one word a line; no word is taken for a pattern
  printf '%s' "$1" | tr -s '[:space:]' '\n' | sed '/^$/d'
}

mapfile -t models < <(words "${QAEVAL_MODELS:-}")
mapfile -t endpoints < <(words "${QAEVAL_ENDPOINTS:-}")
[ "${#models[@]}" -gt 0 ] || { echo "no model named: set models to names from the registry" >&2; exit 64; }

served=()
for endpoint in "${endpoints[@]}"; do served+=("--endpoint=$endpoint"); done
[ -z "${QAEVAL_CONFIG:-}" ] || served+=("--config=$QAEVAL_CONFIG")
asked=("--yes" "--out=${QAEVAL_RUN:?}") # nobody answers a question here
[ -z "${QAEVAL_EVAL:-}" ] || asked+=("--eval=$QAEVAL_EVAL")
[ -z "${QAEVAL_N:-}" ] || asked+=("--n=$QAEVAL_N")
[ -z "${QAEVAL_SEED:-}" ] || asked+=("--seed=$QAEVAL_SEED")
judged=()
[ -z "${QAEVAL_JUDGE:-}" ] || judged+=("--judge=$QAEVAL_JUDGE")
[ -z "${QAEVAL_RUBRIC:-}" ] || judged+=("--rubric=$QAEVAL_RUBRIC")

if [ "${QAEVAL_SEQUENTIAL:-}" = true ]; then
  qaeval generate "${served[@]}" "${asked[@]}" -- "${models[@]}"
elif [ "${#models[@]}" -gt 1 ]; then
  qaeval compare "${served[@]}" "${asked[@]}" "${judged[@]}" -- "${models[@]}"
else # one alone is nothing to compare
  qaeval generate "${served[@]}" "${asked[@]}" -- "${models[@]}"
  qaeval grade "${served[@]}" "${judged[@]}" -- "$QAEVAL_RUN"
  report=()
  [ -z "${QAEVAL_CONFIG:-}" ] || report+=("--config=$QAEVAL_CONFIG")
  qaeval report "${report[@]}" -- "$QAEVAL_RUN"
fi
