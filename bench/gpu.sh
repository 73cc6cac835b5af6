#!/usr/bin/env bash
# Everything that a GPU can tell of Deixis, in one go, on a machine that has CUDA but neither JDK nor network.
#
# usage: [OUT=DIR] bash bench/gpu.sh [STEP...]
#
# Where the project is built, first pack it: bench/gpu-pack.sh. Then, on the GPU machine, in the project's root with .gpu/
# in it, run this script. Steps, by default all in this order:
#   doctor      what the machine has
#   tests       the tests tagged "gpu": operations, training steps, graphs, answers, on the card
#   golden      PyTorch's golden files on the card
#   launch      JMH on the launch path: a launch, packing its arguments, the pool, replay
#   inference   deixis bench: one picture, by graphs and call by call, beside PyTorch where python3 has it
#   training    deixis bench: training steps, Swin-B 224 and 480, P 4, 8 and 16; time and memory, beside PyTorch
#   operations  deixis bench: every kernel, its bytes, operations and share of the card's measured limits
#   compiled    inference and the training step at 224 and P 8 once more, beside torch.compile too
# Left in $OUT (by default runs/gpu), after each step anew: report.md, bench.json, launch.json, and logs.tar.gz with what
# every step printed. A step that fails or runs out of time stops no other; the exit code is that of the first that did. A
# bench that fails is run again without graphs (DEIXIS_GRAPHS=0), so that a fault of theirs costs no figures.
#
# Environment: PYTHON (python3), IMAGES (16), SHARE (4), BENCH_OPTIONS (--quick), and the seconds that each step may take:
# DOCTOR_S (60), TESTS_S (300), GOLDEN_S (120), LAUNCH_S (90), INFERENCE_S (240), TRAINING_S (420), OPERATIONS_S (300),
# COMPILED_S (420).
set -uo pipefail
case ${1:-} in -h|--help) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;; esac

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
out=${OUT:-runs/gpu}
python=${PYTHON:-python3}
steps=(doctor tests golden launch inference training operations compiled)
[ $# -gt 0 ] || set -- "${steps[@]}"
for what in "$@"; do
  case " ${steps[*]} " in *" $what "*) ;; *) echo "gpu.sh: unknown step '$what'; there are ${steps[*]}" >&2; exit 2 ;; esac
done
[ -f .gpu/on-device.sh ] || { echo "gpu.sh: no .gpu/on-device.sh here; pack the build first (bench/gpu-pack.sh)" >&2; exit 2; }
mkdir -p "$out" || exit 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/logs"

# What the launcher says, for the packed runtime.
export OMP_NUM_THREADS=1 RUST_FLAVOR=cpu GPU_QUIET=1 DEIXIS_CACHE=${DEIXIS_CACHE:-$work/cache}
options="--add-modules=jdk.incubator.vector -Dorg.bytedeco.javacpp.maxPhysicalBytes=0 -Dorg.bytedeco.javacpp.maxBytes=0"
export JDK_JAVA_OPTIONS="$options -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Djava.awt.headless=true -XX:+UseParallelGC"

peer=()
if "$python" -c 'import torch, timm, transformers, sys; sys.exit(not torch.cuda.is_available())' > "$work/logs/peer.txt" 2>&1; then
  peer=(--python "$(command -v "$python")")
fi

report() { # puts together what is there by now
  local tables=("$work"/*/bench.json) name
  {
    echo "# $(date -u +%F), $( (nvidia-smi --query-gpu=name --format=csv,noheader 2> /dev/null || echo 'no nvidia-smi') | head -n 1)"
    echo
    echo "Commit $(cat .gpu/extra/commit 2> /dev/null || git rev-parse HEAD 2> /dev/null || echo unknown). $(uname -srm), $(nproc --all) cores."
    [ ${#peer[@]} -gt 0 ] || echo "$python has no torch with CUDA, timm and transformers: no peers."
    echo
    echo '```'
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit --format=csv 2>&1
    echo '```'
    echo
    echo "| step | exit code | seconds | |"
    echo "| --- | --- | --- | --- |"
    cat "$work/steps.md" 2> /dev/null
    echo
    if [ -f "${tables[0]}" ]; then
      bash .gpu/on-device.sh java org.deixis.cli.Main bench --table "${tables[@]}" --out "$out" 2> "$work/logs/report.txt" ||
        for name in "${tables[@]}"; do bash .gpu/on-device.sh java org.deixis.cli.Main bench --table "$name" 2>&1; done
    fi
    if [ -f "$work/logs/launch.txt" ]; then echo; echo '```'; grep -A 9 '^Benchmark ' "$work/logs/launch.txt"; echo '```'; fi
  } > "$work/report.md"
  mv "$work/report.md" "$out/report.md"
  tar -C "$work" -czf "$out/logs.tar.gz" logs
}

first=0
step() { # name, seconds, command...
  local name=$1 seconds=$2 file=$work/logs/$1.txt code start summary
  shift 2
  start=$(date +%s)
  echo "== $name"
  timeout --kill-after=10 "$seconds" "$@" 2>&1 | tee "$file"
  code=${PIPESTATUS[0]}
  [ "$code" != 124 ] || echo "gpu.sh: stopped after $seconds s" | tee -a "$file"
  echo "== $name: exit $code after $(($(date +%s) - start)) s" | tee -a "$file"
  summary=$(grep -E 'tests (successful|failed) ' "$file" | tr -s '[] ' ' ' | tr '\n' ' ')
  echo "| $name | $code | $(($(date +%s) - start)) | $summary|" >> "$work/steps.md"
  if [ "$first" = 0 ]; then first=$code; fi
  report
  return "$code"
}

junit() { # name, seconds, option...
  local name=$1 seconds=$2
  shift 2
  step "$name" "$seconds" env JAVA_OPTS="-Xmx4g -Dtest.backends=cuda -Dgolden.dir=src/test/resources/golden" \
    bash .gpu/on-device.sh junit --details=tree --details-theme=ascii "$@"
}

bench() { # name, seconds, option...
  local name=$1 seconds=$2
  shift 2
  # shellcheck disable=SC2086
  set -- java org.deixis.cli.Main bench --device cuda --images "${IMAGES:-16}" --share "${SHARE:-4}" ${peer[@]+"${peer[@]}"} ${BENCH_OPTIONS:---quick} "$@"
  step "$name" "$seconds" bash .gpu/on-device.sh "$@" --out "$work/$name"
  case $?,$name in
    0,*|124,*|137,*|*,operations) ;;
    *) DEIXIS_GRAPHS=0 step "$name-without-graphs" "$seconds" bash .gpu/on-device.sh "$@" --out "$work/$name-without-graphs" ;;
  esac
}

goldens=()
for test in ops.OpsGoldenTest nn.LayerGoldenTest model.EncoderGoldenTest model.GuideGoldenTest optim.AdamWOptimizerTest; do
  goldens+=(--select-class "org.deixis.$test")
done

for what in "$@"; do
  case $what in
    doctor) step doctor "${DOCTOR_S:-60}" env GPU_QUIET=0 bash .gpu/on-device.sh java org.deixis.cli.Main doctor ;;
    tests) junit tests "${TESTS_S:-300}" --include-tag gpu ;;
    golden) junit golden "${GOLDEN_S:-120}" --include-tag golden "${goldens[@]}" ;;
    launch)
      step launch "${LAUNCH_S:-90}" bash .gpu/on-device.sh java org.openjdk.jmh.Main 'LaunchBenchmark' -f 1 -wi 3 -i 5 -r 1 -w 1 \
        -p "device=cuda" -rf json -rff "$out/launch.json" ;;
    inference) bench inference "${INFERENCE_S:-240}" --rows inference ;;
    training) bench training "${TRAINING_S:-420}" --rows training ;;
    operations) bench operations "${OPERATIONS_S:-300}" --rows operations ;;
    compiled)
      if [ ${#peer[@]} -eq 0 ]; then echo "== compiled: left out, there is no peer"; continue; fi
      bench compiled "${COMPILED_S:-420}" --compiled --rows inference,training --only "Swin-B 224" ;;
  esac
done
exit "$first"
