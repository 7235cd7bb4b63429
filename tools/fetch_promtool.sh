#!/bin/sh
# Put promtool into .tools/, out of Debian's package `prometheus`: the package itself would install and start a server.
# Where there is no Debian nothing is done; the tests that need it say how to get it.
set -eu
cd "$(dirname "$0")/.."
if command -v promtool >/dev/null || [ -x .tools/promtool ]; then exit 0; fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  echo "promtool is not there, and this is no Debian: see https://prometheus.io/download" >&2
  exit 0
fi
mkdir -p .tools
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
target=$PWD/.tools/promtool
cd "$folder"
if apt-get download -qq prometheus 2>/dev/null && dpkg-deb -x prometheus_*.deb .; then
  mv usr/bin/promtool "$target"
else
  echo "promtool could not be fetched: apt-get update first, or see https://prometheus.io/download" >&2
fi
