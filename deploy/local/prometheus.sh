#!/usr/bin/env bash
# A real Prometheus and its promtool, unpacked from Debian's package into build/peers/prometheus: installing the package
# would start a server of its own.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
home=${PROMETHEUS_HOME:-$root/build/peers/prometheus}

if [ -x "$home/usr/bin/promtool" ]; then exit; fi
mkdir -p "$home"
cd "$home"
apt-get download -q prometheus || { apt-get update -qq && apt-get download -q prometheus; }
dpkg-deb -x prometheus_*.deb .
rm prometheus_*.deb
