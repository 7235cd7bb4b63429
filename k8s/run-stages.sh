#!/bin/sh
# Release the stages of l4-single one after the other, each when the one before it is complete; stop at the first that fails.
# It can be stopped and called again: a stage that is complete is passed over.
set -eu
namespace=${NAMESPACE:-qaeval}
pause=${PAUSE:-10}

condition() { # of a job: "Complete", "Failed" or nothing
  kubectl -n "$namespace" get "$1" -o 'jsonpath={range .status.conditions[?(@.status=="True")]}{.type}{"\n"}{end}' |
    grep -Ex 'Complete|Failed' || true
}

jobs=$(kubectl -n "$namespace" get jobs -l qaeval.io/role=stage -o name | sort)
[ -n "$jobs" ] || { echo "no stages in namespace $namespace; kubectl apply -k k8s/overlays/l4-single makes them" >&2 && exit 66; }
for job in $jobs; do
  kubectl -n "$namespace" patch "$job" --type merge -p '{"spec":{"suspend":false}}'
  while :; do
    case $(condition "$job") in
    *Complete*) echo "$job: complete" && break ;;
    *Failed*)
      kubectl -n "$namespace" describe "$job" | tail -n 20 >&2
      echo "$job failed; its logs: kubectl -n $namespace logs $job --all-containers" >&2
      exit 1
      ;;
    esac
    sleep "$pause"
  done
done
