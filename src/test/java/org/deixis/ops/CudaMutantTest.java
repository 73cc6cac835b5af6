package org.deixis.ops;

import static org.junit.jupiter.api.Assertions.fail;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
import org.deixis.backend.cuda.CudaBackend;
import org.deixis.bench.OpCase;
import org.deixis.bench.OpCases;
import org.deixis.core.DType;
import org.deixis.testing.CudaHost;
import org.deixis.testing.KernelMutant;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;

/**
 * Kernels with one mistake each: the case table on the stand-in driver must notice every one. They
 * are mistakes that a GPU may let pass, such as a barrier that is missing where the scheduler
 * happens to be kind.
 */
@Tag("cuda-host")
class CudaMutantTest {
  /**
   * @param file that is changed
   * @param right its text, found exactly once
   * @param wrong what takes its place
   * @param operations whose cases run the kernel
   * @param dtype that the kernel is for
   */
  private record Mutant(
      String name, String file, String right, String wrong, List<String> operations, DType dtype) {
    Mutant(String name, String file, String right, String wrong, List<String> operations) {
      this(name, file, right, wrong, operations, DType.F32);
    }

    static Mutant ofTensorCores(String name, String file, String right, String wrong) {
      return new Mutant(name, file, right, wrong, List.of("window_attention"), DType.F16);
    }
  }

  private static final List<Mutant> MUTANTS =
      List.of(
          new Mutant(
              "fill writes one place to the right",
              "move.cu",
              "put(y + i, v);\n}\n\ntemplate",
              "put(y + i + 1, v);\n}\n\ntemplate",
              List.of("scale", "add", "linear")),
          new Mutant(
              "a tile is written before all of it is read",
              "move.cu",
              "= v[k];\n  __syncthreads();",
              "= v[k];",
              List.of("transpose")),
          new Mutant(
              "columns of a block's last row of threads are left out",
              "move.cu",
              "r < blockDim.y; r++",
              "r < blockDim.y - 1; r++",
              List.of("reduce_sum")),
          new Mutant(
              "rows that are no whole packs are moved as packs",
              "move.cu",
              "bool wide = inner % Pack<T>::N == 0 && aligned(x)",
              "bool wide = aligned(x)",
              List.of("repeat")),
          new Mutant(
              "softmax sums from the next column",
              "norm.cu",
              "OWN_COLUMNS(k, c, columns) v[k] = f(x[c]);",
              "OWN_COLUMNS(k, c, columns) v[k] = f(x[c + 1]);",
              List.of("softmax")),
          new Mutant(
              "groups of rows add to the block's sums all at once",
              "norm.cu",
              "      }\n    }\n    __syncthreads();",
              "      }\n    }",
              List.of("layer_norm")),
          new Mutant(
              "a warp whose second half has no row leaves before the first",
              "norm.cu",
              "threadIdx.x / WARP * (WARP / L);",
              "threadIdx.x / L;",
              List.of("layer_norm")),
          new Mutant(
              "LayerNorm forgets the last row of a chunk",
              "norm.cu",
              "last = min(first + chunk, rows);",
              "last = min(first + chunk, rows) - 1;",
              List.of("layer_norm")),
          new Mutant(
              "the last chunk gives a group's channels no gradient",
              "group_norm.cu",
              "for (int k = run.row; k < chunks; k += run.rows) {",
              "for (int k = run.row; k < chunks - 1; k += run.rows) {",
              List.of("group_norm")),
          new Mutant(
              "moments are merged before all threads have brought theirs",
              "group_norm.cu",
              "  __syncthreads();  // moments of all threads are there\n",
              "",
              List.of("group_norm")),
          new Mutant(
              "the pack beside the run's last is read too",
              "group_norm.cu",
              "row < rows && lane < own * packs ?",
              "row < rows && lane <= own * packs ?",
              List.of("group_norm")),
          new Mutant(
              "keys and values are read before they are there",
              "window_attention.cu",
              "  __syncthreads();\n  float scale = rsqrtf(static_cast<float>(d));\n  i64 first",
              "  float scale = rsqrtf(static_cast<float>(d));\n  i64 first",
              List.of("window_attention")),
          new Mutant(
              "a tile is overwritten while others read it",
              "gemm.cu",
              "    __syncthreads();\n  }\n  for",
              "  }\n  for",
              List.of("matmul", "linear")),
          new Mutant(
              "a block's sum is read before all warps have brought theirs",
              "common.cuh",
              "= v;\n  __syncthreads();\n  float sum = 0;",
              "= v;\n  float sum = 0;",
              List.of("region_pool", "group_norm")),
          new Mutant(
              "a warp brings its sum while others still read the highest",
              "common.cuh",
              "scratch[w]);\n  __syncthreads();\n  return best;",
              "scratch[w]);\n  return best;",
              List.of("softmax")),
          new Mutant(
              "a row's highest is read before all warps have brought theirs",
              "common.cuh",
              "  __syncthreads();\n  float best",
              "  float best",
              List.of("softmax")),
          new Mutant(
              "a barrier that one warp alone reaches",
              "geometry.cu",
              "  sum = group_sum(sum, scratch);\n",
              "  if (threadIdx.x < WARP) sum = group_sum(sum, scratch);\n",
              List.of("region_pool")),
          new Mutant(
              "every place of an id writes its row, not the first alone",
              "geometry.cu",
              "if (ids[i] == row) *seen = 1;",
              "if (ids[i] == row) *seen = 0;",
              List.of("embedding")),
          new Mutant(
              "a flag is put back after others have set it",
              "geometry.cu",
              "= row < 0 || row >= rows;\n  __syncthreads();\n",
              "= row < 0 || row >= rows;\n",
              List.of("embedding"),
              DType.F16), // whose threads run in reverse: in order, warp 0 is first
          new Mutant(
              "of the outputs that are read at once the last is left out",
              "geometry.cu",
              "ox + k <= x1 ?",
              "ox + k <= x1 && k < 3 ?",
              List.of("resize")),
          new Mutant(
              "a row's last four elements are left out",
              "geometry.cu",
              "u32 fours = w / 4,",
              "u32 fours = w / 4 - 1,",
              List.of("region_pool")),
          new Mutant(
              "the shift's mask is dropped",
              "window.cuh",
              "#define MASKED -100.0f",
              "#define MASKED 0.0f",
              List.of("window_attention")),
          new Mutant(
              "dropout draws the same word four times",
              "elementwise.cu",
              "w[e] = all[e];",
              "w[e] = all[e / 4 * 4];",
              List.of("dropout")),
          new Mutant(
              "draws are not moved to the first one asked for",
              "elementwise.cu",
              "if (skip & 2) {",
              "if (skip & 4) {",
              List.of("dropout")),
          new Mutant(
              "what is no whole pack is left out",
              "elementwise.cu",
              "if (blockIdx.x == gridDim.x - 1 && i < n) put(",
              "if (blockIdx.x == gridDim.x - 1 && i < n - 1) put(",
              List.of("scale")),
          new Mutant(
              "a wide load from where none may begin",
              "elementwise.cu",
              "if (aligned(a) && aligned(b) && aligned(y)) {",
              "if (aligned(a) && aligned(y)) {",
              List.of("add")),
          new Mutant(
              "a pack of the row that repeats is taken from the one before",
              "elementwise.cu",
              "q[k] = load_pack(from);",
              "q[k] = load_pack(at(s, i) >= N ? from - N : from);",
              List.of("add")),
          new Mutant(
              "columns are narrowed before all are there",
              "mask_loss.cu",
              "      __syncthreads();  // sums of all columns are there\n",
              "",
              List.of("mask_loss")),
          new Mutant(
              "a band overwrites what others still narrow",
              "mask_loss.cu",
              "      __syncthreads();  // all have read them\n",
              "",
              List.of("mask_loss")),
          new Mutant(
              "a run keeps what the next one's first row receives",
              "mask_loss.cu",
              "if (r > 0 && r % rowsEach == 0)",
              "if (r > rowsEach && r % rowsEach == 0)",
              List.of("mask_loss")),
          new Mutant(
              "both tiles count the columns at their rim",
              "mask_loss.cu",
              "own[c] = x + c < width && t.low >= c0 && t.low < c1 ? 1 : 0;",
              "own[c] = x + c < width ? 1 : 0;",
              List.of("mask_loss")),
          new Mutant(
              "the last of four rows is left out",
              "mask_loss.cu",
              "if (at + k >= next) continue;",
              "if (at + k >= next || k == ROWS - 1) continue;",
              List.of("mask_loss")),
          new Mutant(
              "the last element has no loss of its own",
              "loss.cu",
              "GRID_STRIDE(i, n) {",
              "GRID_STRIDE(i, n - 1) {",
              List.of("binary_loss")),
          new Mutant(
              "an element's target is its neighbour's",
              "loss.cu",
              "element(target, targetType, i)",
              "element(target, targetType, i + 1)",
              List.of("binary_loss"),
              DType.F16),
          new Mutant(
              "a row beyond the last is added to the loss",
              "loss.cu",
              "r < rows; r += blockDim.x",
              "r <= rows; r += blockDim.x",
              List.of("cross_entropy")),
          new Mutant(
              "classes weigh the same in the mean",
              "loss.cu",
              "rowLoss[2 * row + 1] = w;",
              "rowLoss[2 * row + 1] = 1;",
              List.of("cross_entropy")),
          new Mutant(
              "the gradient is drawn to the class beside the right one",
              "loss.cu",
              "(c == target[row] ? 1 : 0)",
              "(c == target[row] + 1 ? 1 : 0)",
              List.of("cross_entropy")),
          new Mutant(
              "sums stay as they were under a higher score",
              "region_attention.cu",
              "float by = first ? 0 : factor ? factor[r] : 1;",
              "float by = first ? 0 : 1;",
              List.of("region_attention")),
          new Mutant(
              "the map keeps its tile's highest score",
              "region_attention.cu",
              "float by = expf(tops[n / TILE] - share.top) * share.scale;",
              "float by = share.scale;",
              List.of("region_attention")),
          new Mutant(
              "the last chunk of pixels is left out",
              "region_attention.cu",
              "for (int k = warp; k < chunks; k += WARPS) {",
              "for (int k = warp; k < chunks - 1; k += WARPS) {",
              List.of("region_attention")),
          new Mutant(
              "a chunk's dot product is its last tile's",
              "region.cuh",
              "if (lane == 0) dot[first + r] += sum;",
              "if (lane == 0) dot[first + r] = sum;",
              List.of("region_attention")),
          new Mutant(
              "weights are overwritten while others read them",
              "region.cuh",
              "    __syncthreads();  // totals are there, and all have left the last tile\n",
              "    if (tile == start) __syncthreads();\n",
              List.of("region_attention"),
              DType.F16),
          new Mutant(
              "values are added before their weights are there",
              "region.cuh",
              "    __syncthreads();  // weights are there\n    Regions::fold(v",
              "    Regions::fold(v",
              List.of("region_attention"),
              DType.F16),
          new Mutant(
              "columns of odd number are those of even",
              "region_attention_mma.cu",
              "high = a >> 16 | (b & 0xffff0000u);",
              "high = low;",
              List.of("region_attention"),
              DType.F16),
          new Mutant(
              "regions beyond sixteen give values no gradient",
              "region_attention_mma.cu",
              "for (int r = 0; r < regions; r += DEPTH) {",
              "for (int r = 0; r < min(regions, DEPTH); r += DEPTH) {",
              List.of("region_attention"),
              DType.F16),
          new Mutant(
              "rows that lanes take beside others are not added",
              "attention.cu",
              "for (int m = across; m < WARP; m *= 2) {",
              "for (int m = across; m < WARP / 2; m *= 2) {",
              List.of("cross_attention")),
          new Mutant(
              "a key's weights are read before all lanes have brought theirs",
              "attention.cu",
              "    __syncwarp();\n    int count",
              "    int count",
              List.of("cross_attention")),
          new Mutant(
              "a word's query begins before its keys are there",
              "attention_mma.cu",
              "  __syncthreads();  // keys and values are there\n",
              "",
              List.of("cross_attention"),
              DType.F16),
          new Mutant(
              "queries see one key beyond the last",
              "attention_tiles.cuh",
              "j < keys && (!mask || mask[j] != 0)",
              "j <= keys && (!mask || j == keys || mask[j] != 0)",
              List.of("cross_attention"),
              DType.F16),
          new Mutant(
              "gradients of words begin before all queries are done",
              "attention_mma.cu",
              "    __syncthreads();  // p, ds, queries and dy are there\n",
              "",
              List.of("cross_attention"),
              DType.F16),
          new Mutant(
              "queries are overwritten while others read them",
              "attention_mma.cu",
              "    __syncthreads();  // keys and values are there, and all have left the last queries\n",
              "    if (start == first) __syncthreads();\n",
              List.of("cross_attention"),
              DType.F16),
          new Mutant(
              "the last sixteen queries give words no gradient",
              "attention_mma.cu",
              "if (16 * K >= left) return;",
              "if (16 * K + 16 > left) return;",
              List.of("cross_attention"),
              DType.F16),
          new Mutant(
              "the last chunk of queries gives words no gradient",
              "attention_mma.cu",
              "c < chunks; c++",
              "c < chunks - 1; c++",
              List.of("cross_attention"),
              DType.F16),
          new Mutant(
              "a warp's second half of keys repeats the first",
              "attention_mma.cu",
              "2 * group + lane / 8 % 2",
              "2 * group",
              List.of("self_attention"),
              DType.F16),
          new Mutant(
              "a step begins before its keys are there",
              "attention_long_mma.cu",
              "    __syncthreads();  // this step's rows are there, and all have left those of the step before\n",
              "",
              List.of("self_attention"),
              DType.F16),
          new Mutant(
              "the next step's rows come over those at work",
              "attention_long_mma.cu",
              "memory + (n & 1) * (2 * S::PART)",
              "memory",
              List.of("self_attention"),
              DType.F16),
          new Mutant(
              "what was summed is not scaled to a higher score",
              "attention_long_mma.cu",
              "out[g][c][e] *= e < 2 ? byTop : byLow;",
              "out[g][c][e] *= 1;",
              List.of("self_attention"),
              DType.F16),
          new Mutant(
              "a first step without a key to be seen is not a number",
              "attention_long_mma.cu",
              "return highest == NEGATIVE_INFINITY ? 0 : highest;",
              "return highest;",
              List.of("self_attention"),
              DType.F16),
          new Mutant(
              "the last step is left out when one key is all it has",
              "attention_long_mma.cu",
              "/ ROWS + 1;",
              "/ ROWS + (static_cast<int>(warp_max(last)) % ROWS != 0);",
              List.of("cross_attention"),
              DType.F16),
          new Mutant(
              "rows behind a chunk's last queries give keys a gradient",
              "attention_long_mma.cu",
              "rows - n * S::ROWS, d",
              "S::ROWS, d",
              List.of("cross_attention"),
              DType.F16),
          new Mutant(
              "keys that are not seen get a gradient",
              "attention_long_mma.cu",
              "(e < 2 ? top : low) ? c[i][e] : 0",
              "c[i][e]",
              List.of("self_attention"),
              DType.F16),
          Mutant.ofTensorCores(
              "a product begins before its keys are there",
              "window_attention_mma.cu",
              "    __syncthreads();  // keys and values are there\n",
              ""),
          Mutant.ofTensorCores(
              "gradients of keys begin before all queries are done",
              "window_attention_mma_backward.cu",
              "    __syncthreads();  // p and ds are there\n",
              ""),
          Mutant.ofTensorCores(
              "a fragment's second half repeats the first",
              "window_attention_mma_backward.cu",
              "2 * warp + lane / 8 % 2)",
              "2 * warp)"),
          Mutant.ofTensorCores(
              "the table is read one key to the right",
              "window_tiles.cuh",
              "low[o.second]",
              "low[o.first]"),
          Mutant.ofTensorCores(
              "the last key of a tile sees through the shift's mask",
              "window_tiles.cuh",
              "  if (second != lowSide) s[3] += MASKED * LOG2E;\n",
              ""),
          Mutant.ofTensorCores(
              "a block's last window is left out",
              "window_tiles.cuh",
              "min(first + each, all)",
              "min(first + each, all) - 1"),
          Mutant.ofTensorCores(
              "padded keys give the bias no gradient",
              "window_tiles.cuh",
              "padding && c >= d",
              "false && c >= d"),
          Mutant.ofTensorCores(
              "a large window's products begin before it is there",
              "window_attention_large.cu",
              "    __syncthreads();  // the window is there\n",
              ""),
          Mutant.ofTensorCores(
              "gradients of a large window begin before it is there",
              "window_attention_large_backward.cu",
              "    __syncthreads();  // the window is there\n",
              ""),
          Mutant.ofTensorCores(
              "gradients of queries begin before all keys are done",
              "window_attention_large_backward.cu",
              "    __syncthreads();  // ds is there\n",
              ""),
          Mutant.ofTensorCores(
              "what was added up stays as it was under a lower reference",
              "window_attention_large.cu",
              "        out[m][i][0] *= a;\n",
              ""),
          Mutant.ofTensorCores(
              "the last sixteen keys are left out",
              "window_attention_large.cu",
              "k < used; k++",
              "k < used - 1; k++"),
          Mutant.ofTensorCores(
              "a warp with one tile left takes none",
              "window_large.cuh",
              "if (own == 1) body(Tiles<1>());",
              "if (own == 3) body(Tiles<1>());"),
          Mutant.ofTensorCores(
              "the table's gradient lies one column to the left",
              "window_attention_large_backward.cu",
              "sum[i + k - j + WIDTH - 1] += v[k]",
              "sum[i + k > j ? i + k - j + WIDTH - 2 : i + k - j + WIDTH - 1] += v[k]"));

  @TempDir Path folder;

  @TestFactory
  Stream<DynamicTest> isNoticed() {
    CudaHost.require();
    // g++ takes longer than the cases: it works ahead of them.
    ExecutorService ahead = Executors.newSingleThreadExecutor();
    List<Future<CudaBackend>> built =
        MUTANTS.stream().map(m -> ahead.submit(() -> backend(m))).toList();
    ahead.shutdown();
    return IntStream.range(0, MUTANTS.size())
        .mapToObj(
            i -> dynamicTest(MUTANTS.get(i).name(), () -> notice(MUTANTS.get(i), built.get(i))));
  }

  private CudaBackend backend(Mutant mutant) throws IOException {
    return CudaHost.mutant(
        new KernelMutant(mutant.name(), mutant.file(), mutant.right(), mutant.wrong()),
        folder.resolve(Integer.toString(MUTANTS.indexOf(mutant))),
        mutant.dtype() == DType.F32 ? 0 : 1);
  }

  private static void notice(Mutant mutant, Future<CudaBackend> built) throws Exception {
    Backend backend = built.get();
    int run = 0;
    for (OpCase c : OpCases.all()) {
      if (!mutant.operations().contains(c.op())) {
        continue;
      }
      run++;
      try {
        OpCaseTest.compare(c, backend, mutant.dtype(), mutant.dtype() == DType.F32 ? 2e-5 : 5e-3);
      } catch (AssertionError | IllegalStateException e) {
        return; // noticed
      }
    }
    fail(run + " cases of " + mutant.operations() + " run, and none notices");
  }
}
