#!/usr/bin/env bash
# Everything that a GPU can tell of Deixis, in one go, on a machine that has CUDA but neither JDK nor network.
#
# usage: [OUT=DIR] bash bench/gpu.sh [STEP...]
#
# Where the project is built, first pack it (the packer is not part of the project):
#   mvn -B -DskipTests package && bash pack.sh --tests       fills .gpu/ with a Java runtime, the jars and the tests
# then, on the GPU machine, in the project's root with .gpu/ in it, run this script. Steps, by default all in this order:
#   doctor   what the machine has                                                       -> doctor.txt
#   tests    the tests tagged "gpu"                                                     -> tests.txt
#   bench    deixis bench --device cuda, beside PyTorch where python3 has it            -> bench.txt bench.json chart.png
#   peer     PyTorch alone: guide training step, eager and compiled, P 4, 8 and 16      -> peer.txt peer.json
# Everything goes to $OUT (by default runs/gpu), at most eight files. A step that fails does not stop the next; the exit
# code is that of the first which failed.
#
# Environment: PYTHON (python3), IMAGES (16), SHARE (4), REGIONS ("4 8 16"), BENCH_OPTIONS ("--quick --compiled"),
# and the seconds that each step may take: DOCTOR_S (60), TESTS_S (150), BENCH_S (240), PEER_S (140).
set -uo pipefail
case ${1:-} in -h|--help) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;; esac

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
out=${OUT:-runs/gpu}
python=${PYTHON:-python3}
mkdir -p "$out" || exit 2
[ -f .gpu/on-device.sh ] || { echo "gpu.sh: no .gpu/on-device.sh here; pack the build first (see the head of this file)" >&2; exit 2; }

# What the launcher says, for the packed runtime.
export OMP_NUM_THREADS=1 RUST_FLAVOR=cpu GPU_QUIET=1
export JDK_JAVA_OPTIONS="--add-modules=jdk.incubator.vector -Dorg.bytedeco.javacpp.maxPhysicalBytes=0 -Dorg.bytedeco.javacpp.maxBytes=0 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Djava.awt.headless=true -XX:+UseParallelGC"

has_peer() { "$python" -c 'import torch, timm, transformers, sys; sys.exit(not torch.cuda.is_available())' > /dev/null 2>&1; }

step() { # name, seconds, file, command...
  local name=$1 seconds=$2 file=$out/$3 code start
  shift 3
  start=$(date +%s)
  echo "== $name"
  timeout --kill-after=10 "$seconds" "$@" 2>&1 | tee "$file"
  code=${PIPESTATUS[0]}
  echo "== $name: exit $code after $(($(date +%s) - start)) s" | tee -a "$file"
  if [ "$first" = 0 ]; then first=$code; fi
}

first=0
if [ $# -eq 0 ]; then set -- doctor tests bench peer; fi
for what in "$@"; do
  case $what in
    doctor) step doctor "${DOCTOR_S:-60}" doctor.txt bash .gpu/on-device.sh java org.deixis.cli.Main doctor ;;
    tests) step tests "${TESTS_S:-150}" tests.txt bash .gpu/on-device.sh junit --include-tag gpu --details=tree ;;
    bench)
      options=(--device cuda --out "$out" --images "${IMAGES:-16}" --share "${SHARE:-4}")
      if has_peer; then options+=(--python "$(command -v "$python")"); else echo "gpu.sh: $python has no torch with CUDA, timm and transformers: the bench runs without peers"; fi
      # shellcheck disable=SC2086
      step bench "${BENCH_S:-240}" bench.txt bash .gpu/on-device.sh java org.deixis.cli.Main bench "${options[@]}" ${BENCH_OPTIONS:---quick --compiled} ;;
    peer)
      # shellcheck disable=SC2086
      step peer "${PEER_S:-140}" peer.txt "$python" bench/pytorch_peer.py guide --device cuda --config swin-b --dtype f16 \
        --images "${IMAGES:-16}" --share "${SHARE:-4}" --size 224 --steps 10 --regions ${REGIONS:-4 8 16} --out "$out/peer.json" ;;
    *) echo "gpu.sh: unknown step '$what'; there are doctor, tests, bench, peer" >&2; exit 2 ;;
  esac
done
exit "$first"
