#!/bin/sh
# Release the stages of l4-single one after the other, each when the one before it is complete; stop at the first that fails.
# It can be stopped and called again: a stage that is complete is passed over.
set -eu
namespace=${NAMESPACE:-qaeval}
pause=${PAUSE:-10}
looks=6 # failures of kubectl in a row that end the script

look() { # at a job: its name and, a line each, the conditions that hold; nothing where there is no such job
  kubectl -n "$namespace" get "$1" --ignore-not-found \
    -o 'jsonpath={.metadata.name}{"\n"}{range .status.conditions[?(@.status=="True")]}{.type}{"\n"}{end}'
}

jobs=$(kubectl -n "$namespace" get jobs -l qaeval.io/role=stage -o name)
[ -n "$jobs" ] || { echo "no stages in namespace $namespace; kubectl apply -k k8s/overlays/l4-single makes them" >&2 && exit 66; }
for job in $(echo "$jobs" | sort); do
  kubectl -n "$namespace" patch "$job" --type merge -p '{"spec":{"suspend":false}}'
  failures=0
  while :; do
    if state=$(look "$job"); then
      failures=0
    else
      failures=$((failures + 1)) state=unknown
    fi
    case $state in
    *Complete*) echo "$job: complete" && break ;;
    *Failed*)
      kubectl -n "$namespace" describe "$job" | tail -n 20 >&2
      echo "$job failed; its logs: kubectl -n $namespace logs $job --all-containers" >&2
      exit 1
      ;;
    "")
      echo "$job: deleted while its end was awaited" >&2
      exit 66
      ;;
    esac
    [ "$failures" -lt "$looks" ] || { echo "$job: kubectl failed $failures times in a row; call this again when it works" >&2 && exit 69; }
    sleep "$pause"
  done
done
