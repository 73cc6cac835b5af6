#!/usr/bin/env bash
# Packs what bench/gpu.sh runs on a machine with CUDA and neither JDK nor network, into .gpu/.
#
# usage: mvn -B -DskipTests package && bash bench/gpu-pack.sh PACKER
# PACKER is a script that makes .gpu/ of jars (pack.sh, not part of the project): a Java runtime, lib/, tests.jar, and
# on-device.sh to run them with. Left out are libraries of the CPU that no step needs (oneDNN, OpenCV, ONNX Runtime),
# natives of other platforms, and the golden files, which lie in the checkout that travels along.
set -euo pipefail
LIMIT_MIB=55
case ${1:-} in ''|-h|--help) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;; esac
packer=$(readlink -f "$1")
[ -f "$packer" ] || { echo "gpu-pack.sh: no file $1; name the packer" >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -d target/test-classes ] || { echo "gpu-pack.sh: nothing built; first mvn -B -DskipTests package" >&2; exit 2; }

jars=target/gpu-jars
rm -rf "$jars"
mvn -B -q dependency:copy-dependencies -DincludeScope=test -Dmdep.prependGroupId=true "-DoutputDirectory=$jars"
rm -f "$jars"/*onnxruntime* "$jars"/com.tngtech.archunit* "$jars"/*tribuo* "$jars"/*protobuf* \
  "$jars"/org.bytedeco.{dnnl,opencv,openblas,opencl}-*-linux-*.jar "$jars"/*jmh-generator* "$jars"/*error_prone*

# A jar holds only what the given commands leave of it.
recut() { # jar, command...
  local jar=$1 folder
  shift
  folder=$(mktemp -d)
  (cd "$folder" && jar xf "$jar" && "$@")
  jar --create --file "$jar" -C "$folder" .
  rm -rf "$folder"
}
for jar in "$jars"/ai.djl.huggingface.tokenizers-*.jar; do
  recut "$(readlink -f "$jar")" find native/lib -mindepth 1 -maxdepth 1 -type d ! -name linux-x86_64 -exec rm -r {} +
done

commit=$(git rev-parse HEAD 2> /dev/null || echo unknown)
git diff --quiet HEAD 2> /dev/null || commit+=", with changes"
echo "$commit" > target/commit
bash "$packer" --tests --limit 100 --with target/commit "$jars"/*.jar
recut "$(readlink -f .gpu/tests.jar)" rm -r golden
size=$(du -sm .gpu | cut -f1)
echo "gpu-pack.sh: .gpu is $size MiB; there: bash bench/gpu.sh" >&2
[ "$size" -le "$LIMIT_MIB" ] || { echo "gpu-pack.sh: that is more than $LIMIT_MIB MiB: leave more jars out" >&2; exit 1; }
