#!/usr/bin/env bash
# Generates shared/stubs from protos. With --check, says whether what is committed differs, and changes nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(cd "${VENV:-.venv}/bin" && pwd)
out=$(mktemp -d "${TMPDIR:-/tmp}/aisle-stubs.XXXXXX")
trap 'rm -rf "$out"' EXIT
mapfile -t files < <(find protos -name '*.proto' | sort)
PATH="$bin:$PATH" "$bin/python" -m grpc_tools.protoc -I protos \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" "${files[@]}"
find "$out/aisle" -type d -exec touch {}/__init__.py \; -exec touch {}/py.typed \;
find "$out" -name py.typed -mindepth 3 -delete
# Files with no service get an empty gRPC module: noise.
for proto in "${files[@]}"; do
  grep -q '^service ' "$proto" || rm -f "$out/$(realpath --relative-to=protos "${proto%.proto}")"_pb2_grpc.py*
done
if [ "${1:-}" = --check ]; then
  diff -r -x __pycache__ "$out" shared/stubs >/dev/null ||
    { echo "shared/stubs differs from protos: run 'make stubs' and commit the result" >&2; exit 1; }
  echo "stubs match protos"
else
  rm -rf shared/stubs && mkdir -p shared/stubs && cp -r "$out/." shared/stubs/
  echo "stubs written to shared/stubs"
fi
