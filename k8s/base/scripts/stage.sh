#!/bin/sh
# One stage of a run. The settings come from the ConfigMap `run`; whatever was finished before an interruption is not asked again.
#
#   stage.sh generate MODEL...   a run directory for the models of one server
#   stage.sh grade JUDGE         every run directory of $RUN graded, then one report of all
#   stage.sh shard MODEL...      this pod's share of a comparison
#   stage.sh merge               the shares put together, then the report
set -eu
results=${RESULTS:-/results}/$RUN
config=${CONFIG:-/config/qaeval.yaml}
mkdir -p "$results"

report() { # of the run directories that are named
  for kind in md html json; do
    qaeval report "$@" --config "$config" --format "$kind" >"$results/report.$kind.part"
    mv "$results/report.$kind.part" "$results/report.$kind"
  done
  cat "$results/report.md"
}

data() { # what the run is about, in front of whatever follows
  if [ -n "${CHUNKS:-}" ]; then set -- --chunks "$CHUNKS" "$@"; fi
  if [ -n "${N:-}" ]; then set -- --n "$N" "$@"; fi
  if [ -f "$out/settings.json" ]; then set -- --resume "$@"; fi
  qaeval "$command" --eval "$EVAL" --seed "${SEED:-0}" --config "$config" --out "$out" "$@"
}

command=$1
shift
case $command in
generate)
  out=$results/$1
  data "$@"
  ;;
grade)
  for run in "$results"/*/; do qaeval grade "$run" --judge "$1" --config "$config"; done
  report "$results"/*/
  ;;
shard)
  command=compare out=$results/shard-$JOB_COMPLETION_INDEX
  data --judge "$JUDGE" --shard "$JOB_COMPLETION_INDEX/$SHARDS" "$@"
  ;;
merge)
  qaeval merge "$results"/shard-* --out "$results/merged"
  report "$results/merged"
  ;;
*)
  echo "stage.sh: generate, grade, shard or merge, not $command" >&2
  exit 64
  ;;
esac
