#!/usr/bin/env bash
# Compiles every kernel file with nvcc for all architectures that the backend names, and prints registers and spills of
# each kernel on one of them (default sm_90), fp32 and fp16. Usage: cuda/report.sh [sm_NN], or cuda/report.sh --compile
# for the first part alone.
set -euo pipefail
cd "$(dirname "$0")"
shown=${1:-sm_90}
command -v nvcc > /dev/null || { echo "cuda/report.sh: no nvcc on the path" >&2; exit 2; }
compile() { # all files, for every architecture, with elements of these types
  for type in "$@"; do
    for file in *.cu; do
      for arch in sm_75 sm_80 sm_86 sm_89 sm_90 sm_100; do echo "-DDEIXIS_T=$type -arch=$arch $file"; done
    done
  done | xargs -P "$(nproc)" -L 1 nvcc -std=c++17 -cubin -o /dev/null
}
if [ "$shown" = --compile ]; then
  compile 0 1 2
  echo "cuda/report.sh: $(ls ./*.cu | wc -l) files compile in fp32, fp16 and bf16 for sm_75, sm_80, sm_86, sm_89, sm_90, sm_100"
  exit 0
fi
compile 2 # fp32 and fp16 follow, on one architecture
echo "| kernel | registers fp32 | registers fp16 | spilled bytes |"
echo "| --- | --- | --- | --- |"
for file in *.cu; do
  paste -d' ' <(nvcc -std=c++17 -arch="$shown" -DDEIXIS_T=0 -Xptxas -v -cubin -o /dev/null "$file" 2>&1) \
    <(nvcc -std=c++17 -arch="$shown" -DDEIXIS_T=1 -Xptxas -v -cubin -o /dev/null "$file" 2>&1) |
    awk '/Compiling entry/ { split($0, q, "\x27"); name = q[2] }
      /spill stores/ { spill = 0; n = split($0, w, " "); for (i = 1; i < n; i++) if (w[i + 2] == "spill" && w[i + 1] == "bytes") spill += w[i] }
      /Used .* registers/ { n = split($0, w, " "); k = 0; for (i = 2; i <= n; i++) if (w[i] ~ /^registers/) r[k++] = w[i - 1];
        printf "| `%s` | %s | %s | %d |\n", name, (k > 1 ? r[0] : "–"), r[k - 1], spill }' | sort
done
