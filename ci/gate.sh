#!/usr/bin/env bash
# Gate a run, and put what CI shows of it into one folder. Ends with the exit code of qaeval gate.
#
#   QAEVAL_RUN          run directory
#   QAEVAL_BASELINE, QAEVAL_POLICY, QAEVAL_CONFIG
#                       as the options of qaeval gate; what is empty is left out
#   QAEVAL_SEQUENTIAL   true: have the judge grade until the answer is certain; QAEVAL_JUDGE, QAEVAL_RUBRIC, QAEVAL_ENDPOINTS say who
#   QAEVAL_OUT          folder that takes junit.xml, summary.md, comment.md, gate.json, report.html
#   QAEVAL_LINK         where a reader of the comment finds the report
#   GITHUB_STEP_SUMMARY, GITHUB_OUTPUT   as GitHub sets them; may be missing
set -euo pipefail

if [ "${GITHUB_ACTIONS:-}" = true ]; then # GitHub obeys lines of a log; what models, files and servers say stands in this one
  token=$(mktemp -u XXXXXXXXXXXXXXXXXXXXXXXX)
  exec 2>&1
  echo "::stop-commands::$token"
  trap 'echo "::$token::"' EXIT
fi

out="${QAEVAL_OUT:?}"
mkdir -p "$out"
rm -f "$out/junit.xml" "$out/summary.md" "$out/comment.md" "$out/gate.json" "$out/report.html" # of an earlier job on this runner
options=("--junit=$out/junit.xml" "--summary=$out/summary.md" "--comment=$out/comment.md")
[ -z "${QAEVAL_LINK:-}" ] || options+=("--link=$QAEVAL_LINK")
[ -z "${QAEVAL_BASELINE:-}" ] || options+=("--baseline=$QAEVAL_BASELINE")
[ -z "${QAEVAL_POLICY:-}" ] || options+=("--policy=$QAEVAL_POLICY")
[ -z "${QAEVAL_CONFIG:-}" ] || options+=("--config=$QAEVAL_CONFIG")

if [ "${QAEVAL_SEQUENTIAL:-}" = true ]; then
  options+=(--sequential)
  [ -z "${QAEVAL_JUDGE:-}" ] || options+=("--judge=$QAEVAL_JUDGE")
  [ -z "${QAEVAL_RUBRIC:-}" ] || options+=("--rubric=$QAEVAL_RUBRIC")
  mapfile -t endpoints < <(printf '%s' "${QAEVAL_ENDPOINTS:-}" | tr -s '[:space:]' '\n' | sed '/^$/d')
  for endpoint in "${endpoints[@]}"; do options+=("--endpoint=$endpoint"); done
fi

code=0
qaeval gate "${options[@]}" -- "${QAEVAL_RUN:?}" || code=$?

[ -f "$out/summary.md" ] || printf '## qaeval gate: no verdict\n\nIt ended with exit code %s; the log of the job says why.\n' "$code" > "$out/summary.md"
[ -z "${GITHUB_STEP_SUMMARY:-}" ] || cat "$out/summary.md" >> "$GITHUB_STEP_SUMMARY"
[ -z "${GITHUB_OUTPUT:-}" ] || printf 'exit-code=%s\n' "$code" >> "$GITHUB_OUTPUT"
for name in gate.json report.html; do
  [ ! -f "$QAEVAL_RUN/$name" ] || cp "$QAEVAL_RUN/$name" "$out/"
done
exit "$code"
