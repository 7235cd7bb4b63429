#!/usr/bin/env bash
# Build the image of the Containerfile and compare the embedded models in it: without network, on a read-only file system, as
# its own user. Where no container builder works, or the base cannot be fetched, says so
# and ends with 0.
set -euo pipefail
cd "$(dirname "$0")/.."

builder=
for name in podman docker; do
  if command -v "$name" >/dev/null && "$name" info >/dev/null 2>&1; then
    builder=$name
    break
  fi
done
if [ -z "$builder" ]; then
  echo "no container builder works here (podman, docker): the image is not tested"
  exit 0
fi

base=$(sed -n 's/^ARG BASE=//p' Containerfile)
if ! "$builder" image inspect "$base" >/dev/null 2>&1 && ! "$builder" pull --quiet "$base" >/dev/null; then
  echo "$builder cannot fetch $base here: the image is not tested"
  exit 0
fi

image=localhost/qaeval:smoke
"$builder" build --quiet --tag "$image" --file Containerfile . >/dev/null
trap '"$builder" image rm --force "$image" >/dev/null' EXIT
inside() { "$builder" run --rm --network none --read-only --tmpfs /tmp:mode=1777 --cap-drop ALL "$image" "$@"; }

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
[ "$(inside --version)" = "qaeval $version" ] || { echo "the image is not version $version" >&2; exit 1; }
inside compare embedded-lead embedded-salient --n 12 --out /tmp/run | tail -n 1
echo "$builder: the image of version $version compares the embedded models"
