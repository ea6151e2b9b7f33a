#!/usr/bin/env bash
# A real Milvus standalone server without containers, in an environment of its own (build/peers/milvus): its wheel
# pins packages that must not meet the project's.
#
#   milvus_server.sh install               make the environment, once
#   milvus_server.sh run DIR [PORT [FLAG…]]   serve DIR on PORT (default 19530) until interrupted, with flags of the
#                                          wheel's own: --authorization-enabled true, --tls-mode 1, …
#                                          METRICS_PORT (default 9091) in the environment: /metrics and /healthz
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=${MILVUS_VENV:-$root/build/peers/milvus}
version=2.3.5

install() {
  if [ -x "$venv/bin/milvus-server" ]; then return; fi
  "${PYTHON:-python3.11}" -m venv "$venv"
  # The wheel imports pkg_resources, which setuptools 82 dropped.
  "$venv/bin/pip" install --quiet "milvus==$version" 'setuptools<82'
}

case "${1:-}" in
  install) install ;;
  run)
    install
    data=${2:?a directory for its data}
    mkdir -p "$data"
    # Its etcd would take port 2380 whatever else runs; with ports of their own, several servers fit one machine.
    read -r client peer < <("$venv/bin/python" -c '
import socket
probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(probe.getsockname()[1] for probe in probes))')
    cat > "$data/etcd.yaml" <<YAML
name: default
listen-client-urls: http://127.0.0.1:$client
advertise-client-urls: http://127.0.0.1:$client
listen-peer-urls: http://127.0.0.1:$peer
initial-advertise-peer-urls: http://127.0.0.1:$peer
initial-cluster: default=http://127.0.0.1:$peer
YAML
    export ETCD_CONFIG_PATH
    ETCD_CONFIG_PATH=$(cd "$data" && pwd)/etcd.yaml
    # Seconds for which a server that was killed still counts as alive and keeps its successor waiting (default 30).
    export COMMON_SESSION_TTL=5
    # A search walks the graph of every segment, so there should be few: 1 GiB each, and sealed at an eighth of that, as
    # from Milvus 2.4 on; this release's own is half of it.
    export DATACOORD_SEGMENT_MAXSIZE=${DATACOORD_SEGMENT_MAXSIZE:-1024}
    export DATACOORD_SEGMENT_SEALPROPORTION=${DATACOORD_SEGMENT_SEALPROPORTION:-0.12}
    # The wheel moves on to the next port where connections of a server just killed linger; Milvus itself need not.
    export PROXY_PORT=${3:-19530}
    # It takes this port, or the next one that is free.
    export METRICS_PORT=${METRICS_PORT:-9091}
    # As bin/milvus-server, which has no flag for that one.
    exec "$venv/bin/python" -c '
import os
import milvus
milvus.default_server.webservice_port = int(os.environ["METRICS_PORT"])
milvus.main()' --data "$data" --etcd-port "$client" --proxy-port "$PROXY_PORT" "${@:4}"
    ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
