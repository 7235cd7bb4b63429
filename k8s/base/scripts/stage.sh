#!/bin/sh
# One stage of a run. The settings come from the ConfigMap `run`; whatever was finished before an interruption is not asked again.
#
#   stage.sh generate MODEL...   a run directory for the models of one server
#   stage.sh grade JUDGE         every run directory of $RUN graded, then one report of all
#   stage.sh shard MODEL...      this pod's shard of a comparison; one that is committed is left as it is
#   stage.sh merge               the committed shards put together, then the report
#   stage.sh ray MODEL...        the whole comparison on the Ray cluster of this pod, its blocks in $STORE
#
# Options of qaeval may follow the names.
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
  qaeval "$command" --yes --eval "$EVAL" --seed "${SEED:-0}" --config "$config" --out "$out" "$@"
}

command=$1
shift
case $command in
generate)
  out=$results/$1
  data "$@"
  ;;
grade)
  judge=$1
  shift
  for run in "$results"/*/; do qaeval grade "$run" --yes --judge "$judge" --config "$config" "$@"; done
  report "$results"/*/
  ;;
shard)
  command=compare out=$results/shards
  data --judge "$JUDGE" --shard "$JOB_COMPLETION_INDEX/$SHARDS" "$@"
  ;;
merge)
  qaeval merge "$results/shards" --out "$results/merged" --config "$config"
  report "$results/merged"
  ;;
ray)
  command=compare out=$results/compared
  data --judge "$JUDGE" --backend ray --ray-address auto --ray-store "$STORE/$RUN" "$@"
  ;;
*)
  echo "stage.sh: generate, grade, shard, merge or ray, not $command" >&2
  exit 64
  ;;
esac
