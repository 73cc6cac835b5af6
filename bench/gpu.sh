#!/usr/bin/env bash
# Everything that a GPU can tell of Deixis, in one go, on a machine that has CUDA but neither JDK nor network.
#
# usage: [OUT=DIR] [BUDGET_S=SECONDS] bash bench/gpu.sh [STEP...]
#
# Where the project is built, first pack it: bench/gpu-pack.sh. Then, on the GPU machine, in the project's root with .gpu/
# in it, run this script. Steps, by default all in this order:
#   doctor      what the machine has
#   compile     all kernels into DEIXIS_CACHE, on all cores: else each step's first calls compile, one after the other
#   tests       the tests tagged "gpu": operations, training steps, graphs, answers, on the card
#   golden      PyTorch's golden files on the card
#   launch      JMH on the launch path: a launch, packing its arguments, the pool, replay
#   kernels     JMH on every fused kernel at a batch's shapes: time, GB/s, GFLOP/s
#   inference   deixis bench: one picture, by graphs and call by call, beside PyTorch where python3 has it
#   training    deixis bench: training steps, Swin-B 224 and 480, P 4, 8 and 16; time and memory, beside PyTorch
#   operations  deixis bench: every kernel, its bytes, operations and share of the card's measured limits
#   compiled    inference and the training step at 224 and P 8 once more, beside torch.compile too
# Two names stand for sets, each for a command of ten minutes at most:
#   first       doctor compile tests launch kernels, in 570 seconds
#   second      compile operations inference training, in 570 seconds
# With BUDGET_S, all steps together take no longer: a step gets what is left, and those that nothing is left for are left
# out, which the report says. For a machine that is lent for 900 seconds in all: BUDGET_S=380 with first, then with second.
#
# Left in $OUT (by default runs/gpu), after each step anew: report.md, bench.json, and in parts/ each step's log and
# figures, as they come: a bench writes after each row, so that whatever ends a step, what it had measured is there.
# A step that fails or runs out of time stops no other; the exit code is that of the first that did. A bench that fails is
# run again without graphs (DEIXIS_GRAPHS=0), so that a fault of theirs costs no figures.
#
# Environment: PYTHON (python3), IMAGES (16), SHARE (4), BENCH_OPTIONS (--quick), and the seconds that each step may take:
# DOCTOR_S (30), COMPILE_S (90), TESTS_S (300), GOLDEN_S (120), LAUNCH_S (60), KERNELS_S (120), INFERENCE_S (150),
# TRAINING_S (240), OPERATIONS_S (240), COMPILED_S (420).
set -uo pipefail
case ${1:-} in -h|--help) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;; esac

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
out=${OUT:-runs/gpu}
python=${PYTHON:-python3}
budget=${BUDGET_S:-}
steps=(doctor compile tests golden launch kernels inference training operations compiled)
[ $# -gt 0 ] || set -- "${steps[@]}"
wanted=()
for what in "$@"; do
  case " ${steps[*]} first second " in
    *" $what "*) ;;
    *) echo "gpu.sh: unknown step '$what'; there are ${steps[*]}, and first and second" >&2; exit 2 ;;
  esac
  case $what in
    first) wanted+=(doctor compile tests launch kernels); budget=${budget:-570} ;;
    second) wanted+=(compile operations inference training); budget=${budget:-570} ;;
    *) wanted+=("$what") ;;
  esac
done
case $budget in *[!0-9]*) echo "gpu.sh: BUDGET_S is '$budget': give seconds" >&2; exit 2 ;; esac
[ -f .gpu/on-device.sh ] || { echo "gpu.sh: no .gpu/on-device.sh here; pack the build first (bench/gpu-pack.sh)" >&2; exit 2; }
began=$(date +%s)
work=$out/parts
commit=$(cat .gpu/extra/commit 2> /dev/null || git rev-parse HEAD 2> /dev/null || echo unknown)
# What another commit left is no part of this report; steps of this one that ran before are.
[ "$(cat "$work/commit" 2> /dev/null)" = "$commit" ] || rm -rf "$work"
mkdir -p "$work/logs" || exit 2
work=$(cd "$work" && pwd)
echo "$commit" > "$work/commit"
touch "$work/steps.md"

# Starting Java twice for the report, and a step's end, must fit too.
RESERVE_S=15
# A step that gets less than this does not begin.
LEAST_S=20

# What the launcher says, for the packed runtime.
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
export OMP_NUM_THREADS=1 RUST_FLAVOR=cpu GPU_QUIET=1 DEIXIS_CACHE=${DEIXIS_CACHE:-$cache}
options="--add-modules=jdk.incubator.vector -Dorg.bytedeco.javacpp.maxPhysicalBytes=0 -Dorg.bytedeco.javacpp.maxBytes=0"
export JDK_JAVA_OPTIONS="$options -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Djava.awt.headless=true -XX:+UseParallelGC"

peer=()
if "$python" -c 'import torch, timm, transformers, sys; sys.exit(not torch.cuda.is_available())' > "$work/logs/peer.txt" 2>&1; then
  peer=(--python "$(command -v "$python")")
fi

smi() { # what it is asked; nothing where it is missing or has no answer
  command -v nvidia-smi > /dev/null && nvidia-smi --format="$1" --query-gpu="$2" 2> /dev/null
}

report() { # puts together what is there by now
  local tables=("$work"/*/bench.json) name card
  card=$(smi csv,noheader name | head -n 1)
  {
    echo "# $(date -u +%F), ${card:-no nvidia-smi to name the card}"
    echo
    echo "Commit $commit. $(uname -srm), $(nproc --all) cores."
    [ ${#peer[@]} -gt 0 ] || echo "$python has no torch with CUDA, timm and transformers: no peers."
    echo
    if [ -n "$card" ]; then
      echo '```'
      smi csv name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit
      echo '```'
      echo
    fi
    echo "| step | exit code | seconds | |"
    echo "| --- | --- | --- | --- |"
    cat "$work/steps.md"
    echo
    if [ -f "${tables[0]}" ]; then
      bash .gpu/on-device.sh java org.deixis.cli.Main bench --table "${tables[@]}" --out "$out" 2> "$work/logs/report.txt" ||
        for name in "${tables[@]}"; do bash .gpu/on-device.sh java org.deixis.cli.Main bench --table "$name" 2>&1; done
    fi
    for name in launch kernels; do
      if grep -q '^Benchmark ' "$work/logs/$name.txt" 2> /dev/null; then
        echo; echo '```'; sed -n '/^Benchmark /,/^==/p' "$work/logs/$name.txt" | grep -v '^=='; echo '```'
      fi
    done
  } > "$work/report.md"
  mv "$work/report.md" "$out/report.md"
}

done_with() { # name, exit code, seconds, what else there is to say
  grep -v "^| $1 |" "$work/steps.md" > "$work/steps.new"
  mv "$work/steps.new" "$work/steps.md"
  echo "| $1 | $2 | $3 | $4 |" >> "$work/steps.md"
}

first=0
step() { # name, seconds, command...
  local name=$1 seconds=$2 file=$work/logs/$1.txt code start summary left
  shift 2
  if [ -n "$budget" ]; then
    left=$((began + budget - RESERVE_S - $(date +%s)))
    if [ "$left" -lt "$LEAST_S" ]; then
      echo "== $name: left out, no time is left of $budget s"
      done_with "$name" "" "" "left out: no time left of $budget s"
      if [ "$first" = 0 ]; then first=124; fi
      report
      return 124
    fi
    [ "$seconds" -le "$left" ] || seconds=$left
  fi
  start=$(date +%s)
  echo "== $name"
  timeout --kill-after=10 "$seconds" "$@" 2>&1 | tee "$file"
  code=${PIPESTATUS[0]}
  summary=$(grep -E 'tests (successful|failed) ' "$file" | tr -s '[] ' ' ' | tr '\n' ' ')
  case $code in
    124|137) summary="stopped after $seconds s; what it had is here $summary"; echo "gpu.sh: stopped after $seconds s" | tee -a "$file" ;;
  esac
  echo "== $name: exit $code after $(($(date +%s) - start)) s" | tee -a "$file"
  done_with "$name" "$code" "$(($(date +%s) - start))" "$summary"
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
  rm -rf "${work:?}/$name"
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

for what in "${wanted[@]}"; do
  case $what in
    doctor) step doctor "${DOCTOR_S:-30}" env GPU_QUIET=0 bash .gpu/on-device.sh java org.deixis.cli.Main doctor ;;
    compile) step compile "${COMPILE_S:-90}" bash .gpu/on-device.sh java org.deixis.cli.Main bench --device cuda --fill-cache ;;
    tests) junit tests "${TESTS_S:-300}" --include-tag gpu ;;
    golden) junit golden "${GOLDEN_S:-120}" --include-tag golden "${goldens[@]}" ;;
    launch)
      step launch "${LAUNCH_S:-60}" bash .gpu/on-device.sh java org.openjdk.jmh.Main 'LaunchBenchmark' -f 1 -wi 2 -i 5 -r 1 -w 1 \
        -p "device=cuda" -rf json -rff "$work/launch.json" ;;
    kernels) # in one process: the code that launches is the same for all, and a fork for each would take minutes
      step kernels "${KERNELS_S:-120}" bash .gpu/on-device.sh java org.deixis.bench.KernelBenchmark -f 0 -wi 2 -i 3 -r 200ms \
        -w 200ms -p "device=cuda" -rf json -rff "$work/kernels.json" ;;
    inference) bench inference "${INFERENCE_S:-150}" --rows inference ;;
    training) bench training "${TRAINING_S:-240}" --rows training ;;
    operations) bench operations "${OPERATIONS_S:-240}" --rows operations ;;
    compiled)
      if [ ${#peer[@]} -eq 0 ]; then echo "== compiled: left out, there is no peer"; continue; fi
      bench compiled "${COMPILED_S:-420}" --compiled --rows inference,training --only "Swin-B 224" ;;
  esac
done
exit "$first"
