// A stand-in for libcublasLt: the calls that the backend makes, by plain loops over the stand-in
// driver's memory. It keeps the library's rules (column-major, leading dimensions, batch strides,
// the bias along the rows of D) and refuses what the library would. Three algorithms compute the same;
// where D has 13 rows they differ in speed, the second being the fastest. BGRADB writes the sums of
// B over k where the bias points, one value a column of D. GELU is the tanh form; GELU_AUX writes its
// argument beside it, and DGELU multiplies by its derivative there, both in a matrix that lies as the
// leading dimension of the argument says, a multiple of 8. Some numbers of rows of D are refused, as the constants
// below say, and algorithms are advised only to who allows sums of parts in fp32 alone.
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>

#include "host.h"
#include "submit.h"

namespace {
constexpr int SUCCESS = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, INTERNAL_ERROR = 14, NOT_SUPPORTED = 15;
constexpr int R_32F = 0, R_16F = 2, R_16BF = 14, COMPUTE_32F = 68;
constexpr uint64_t ALGORITHM = 0xA160;  // the first word of an algorithm, plus its number
constexpr int ALGORITHMS = 3, SLOW_ROWS = 13, SLEEP_MS[] = {4, 0, 8};
constexpr int EPILOGUE_DEFAULT = 1, EPILOGUE_RELU = 2, EPILOGUE_BIAS = 4, EPILOGUE_BGRADB = 512;
constexpr int EPILOGUE_GELU = 32, EPILOGUE_AUX = 128, EPILOGUE_GELU_AUX = 160, EPILOGUE_DGELU = 192;
// Where D has so many rows there is no algorithm for BGRADB, or for GELU and what belongs to it.
constexpr uint64_t NO_SUMS_ROWS = 11, NO_GELU_ROWS = 24;
// No algorithm with a bias; none at all; algorithms that are advised and then refused, but for the last.
constexpr uint64_t NO_BIAS_ROWS = 43, NO_ALGORITHM_ROWS = 47, REFUSING_ROWS = 53;
constexpr int REDUCTION_COMPUTE_TYPE = 2;

struct Desc {
  int transA = 0, transB = 0, epilogue = EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  void* argument = nullptr;
  int64_t argument_ld = 0;
  bool gelu() const { return epilogue == EPILOGUE_DGELU || epilogue & EPILOGUE_GELU; }
};
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t ld;
  int batch = 1;
  int64_t stride = 0;
};

float load(const void* p, int type, int64_t i) {
  if (type == R_32F) return static_cast<const float*>(p)[i];
  uint16_t bits = static_cast<const uint16_t*>(p)[i];
  return type == R_16F ? deixis_host::half_to_float(bits) : __uint_as_float(static_cast<uint32_t>(bits) << 16);
}
void store(void* p, int type, int64_t i, float v) {
  if (type == R_32F) {
    static_cast<float*>(p)[i] = v;
  } else if (type == R_16F) {
    static_cast<uint16_t*>(p)[i] = deixis_host::float_to_half(v);
  } else {
    uint32_t bits = __float_as_uint(v);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    static_cast<uint16_t*>(p)[i] = static_cast<uint16_t>(nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
}

constexpr float SQRT_2_OVER_PI = 0.79788456080286536f, CUBIC = 0.044715f;
float gelu(float x) { return 0.5f * x * (1 + std::tanh(SQRT_2_OVER_PI * (x + CUBIC * x * x * x))); }
float gelu_derivative(float x) {
  float t = std::tanh(SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
  return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * CUBIC * x * x);
}

template <class V>
int take(V& to, const void* from, size_t size) {
  if (size != sizeof(V)) return INVALID_VALUE;
  memcpy(&to, from, size);
  return SUCCESS;
}

void product(const Desc& m, const Layout& A, const Layout& B, const Layout& C, const Layout& D, float x, float y,
             const void* a, const void* b, const void* c, void* d) {
  uint64_t rows = D.rows, columns = D.columns, k = m.transA ? A.rows : A.columns;
  for (int64_t n = 0; n < D.batch; n++)
    for (uint64_t j = 0; j < columns; j++)
      for (uint64_t i = 0; i < rows; i++) {
        float sum = 0;
        for (uint64_t p = 0; p < k; p++)
          sum += load(a, A.type, n * A.stride + (m.transA ? i * A.ld + p : p * A.ld + i)) *
                 load(b, B.type, n * B.stride + (m.transB ? p * B.ld + j : j * B.ld + p));
        float v = x * sum;
        if (y != 0) v += y * load(c, C.type, n * C.stride + j * C.ld + i);
        if (m.epilogue == EPILOGUE_BGRADB && i == 0) {
          float total = 0;
          for (uint64_t p = 0; p < k; p++) total += load(b, B.type, m.transB ? p * B.ld + j : j * B.ld + p);
          store(const_cast<void*>(m.bias), D.type, j, total);
        }
        if (m.epilogue & EPILOGUE_BIAS) v += load(m.bias, D.type, i);
        if (m.epilogue & EPILOGUE_RELU) v = v > 0 ? v : 0;
        int64_t argument = static_cast<int64_t>(j) * m.argument_ld + static_cast<int64_t>(i);
        if (m.epilogue == EPILOGUE_DGELU) {
          v *= gelu_derivative(load(m.argument, D.type, argument));
        } else if (m.gelu()) {
          if (m.epilogue & EPILOGUE_AUX) store(m.argument, D.type, argument, v);
          v = gelu(v);
        }
        store(d, D.type, n * D.stride + j * D.ld + i, v);
      }
}
// Whether a matrix lies in one buffer of the device, where elements of its type may begin.
extern "C" bool deixis_known(const void* address, size_t bytes);
extern "C" bool deixis_capturing();
bool there(const Layout& l, const void* p) {
  size_t size = l.type == R_32F ? 4 : 2;
  int64_t elements = (l.batch - 1) * l.stride + (static_cast<int64_t>(l.columns) - 1) * l.ld + static_cast<int64_t>(l.rows);
  return reinterpret_cast<uintptr_t>(p) % size == 0 && deixis_known(p, elements * size);
}
// Kernels may read the bias 16 bytes at once, and no preference tells the library where it lies.
constexpr uintptr_t WORKSPACE_ALIGNMENT = 256, BIAS_ALIGNMENT = 16;
}  // namespace

extern "C" {
int cublasLtCreate(void** handle) { return *handle = new int(1), SUCCESS; }
int cublasLtDestroy(void* handle) { return delete static_cast<int*>(handle), SUCCESS; }
const char* cublasLtGetStatusString(int code) {
  return code == INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE" : code == NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS";
}
int cublasLtMatmulDescCreate(void** desc, int compute, int scale) {
  if (compute != COMPUTE_32F || scale != R_32F) return NOT_SUPPORTED;
  return *desc = new Desc, SUCCESS;
}
int cublasLtMatmulDescDestroy(void* desc) { return delete static_cast<Desc*>(desc), SUCCESS; }
int cublasLtMatmulDescSetAttribute(void* desc, int attribute, const void* value, size_t size) {
  auto* d = static_cast<Desc*>(desc);
  switch (attribute) {
    case 3: return take(d->transA, value, size);
    case 4: return take(d->transB, value, size);
    case 7: return take(d->epilogue, value, size);
    case 8: return take(d->bias, value, size);
    case 11: return take(d->argument, value, size);
    case 12: return take(d->argument_ld, value, size);
    default: return NOT_SUPPORTED;
  }
}
int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t columns, int64_t ld) {
  if (type != R_32F && type != R_16F && type != R_16BF) return NOT_SUPPORTED;
  if (rows == 0 || columns == 0 || ld < static_cast<int64_t>(rows)) return INVALID_VALUE;
  return *layout = new Layout{type, rows, columns, ld}, SUCCESS;
}
int cublasLtMatrixLayoutDestroy(void* layout) { return delete static_cast<Layout*>(layout), SUCCESS; }
int cublasLtMatrixLayoutSetAttribute(void* layout, int attribute, const void* value, size_t size) {
  auto* l = static_cast<Layout*>(layout);
  if (attribute == 5) return take(l->batch, value, size);
  if (attribute == 6) return take(l->stride, value, size);
  return NOT_SUPPORTED;
}
int cublasLtMatmulPreferenceCreate(void** preference) { return *preference = new int(7), SUCCESS; }  // all schemes
int cublasLtMatmulPreferenceDestroy(void* preference) { return delete static_cast<int*>(preference), SUCCESS; }
// Schemes of reduction: 32 bits; workspace: 64 bits; the alignments of A, B, C and D: 32 bits, powers of two.
int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t size) {
  uint64_t bytes;
  uint32_t alignment;
  if (attribute == 1) return take(bytes, value, size);
  if (attribute == 3) return take(*static_cast<int*>(preference), value, size);
  if (attribute < 5 || attribute > 8) return NOT_SUPPORTED;
  if (int code = take(alignment, value, size)) return code;
  return alignment != 0 && (alignment & (alignment - 1)) == 0 ? SUCCESS : INVALID_VALUE;
}
size_t cublasLtGetVersion() { return 130000; }
// As the library lays it out: an algorithm of 64 bytes and what is known of it.
struct Result {
  uint64_t algorithm[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
int cublasLtMatmulAlgoGetHeuristic(void*, void* desc, void*, void*, void*, void* ld, void* preference, int wanted, Result* results, int* found) {
  if (wanted < 1 || *static_cast<int*>(preference) != REDUCTION_COMPUTE_TYPE) return INVALID_VALUE;
  if (deixis_capturing()) return INTERNAL_ERROR;  // as CUDA 13.3's library does
  auto* m = static_cast<Desc*>(desc);
  uint64_t rows = static_cast<Layout*>(ld)->rows;
  if (m->epilogue == EPILOGUE_BGRADB && rows == NO_SUMS_ROWS) return NOT_SUPPORTED;
  if (m->gelu() && rows == NO_GELU_ROWS) return NOT_SUPPORTED;
  if (rows == NO_ALGORITHM_ROWS) return NOT_SUPPORTED;
  if (rows == NO_BIAS_ROWS && m->epilogue & EPILOGUE_BIAS) return INVALID_VALUE;  // as the library does now and then
  *found = 0;
  while (*found < wanted && *found < ALGORITHMS) {
    Result& r = results[*found];
    memset(&r, 0, sizeof r);
    r.algorithm[0] = ALGORITHM + (*found)++;
  }
  return SUCCESS;
}
int cublasLtMatmul(void*, void* desc, const void* alpha, const void* a, void* la, const void* b, void* lb, const void* beta,
                   const void* c, void* lc, void* d, void* ld, const uint64_t* algorithm, void* workspace, size_t room,
                   void* stream) {
  if (!algorithm || algorithm[0] < ALGORITHM || algorithm[0] >= ALGORITHM + ALGORITHMS) return INVALID_VALUE;
  auto* m = static_cast<Desc*>(desc);
  auto *A = static_cast<Layout*>(la), *B = static_cast<Layout*>(lb), *C = static_cast<Layout*>(lc), *D = static_cast<Layout*>(ld);
  uint64_t rows = m->transA ? A->columns : A->rows, k = m->transA ? A->rows : A->columns;
  uint64_t columns = m->transB ? B->rows : B->columns;
  if ((m->transB ? B->columns : B->rows) != k || D->rows != rows || D->columns != columns || C->rows != rows ||
      C->columns != columns || A->batch != D->batch || B->batch != D->batch || C->batch != D->batch)
    return INVALID_VALUE;
  if (!there(*A, a) || !there(*B, b) || !there(*C, c) || !there(*D, d)) return INVALID_VALUE;
  bool sums = m->epilogue == EPILOGUE_BGRADB;
  if (sums && D->batch != 1) return INVALID_VALUE;
  size_t bias_bytes = (sums ? D->columns : D->rows) * (D->type == R_32F ? 4 : 2);
  bool bias_there = reinterpret_cast<uintptr_t>(m->bias) % BIAS_ALIGNMENT == 0 && deixis_known(m->bias, bias_bytes);
  if ((sums || (m->epilogue & EPILOGUE_BIAS)) && !bias_there) return INVALID_VALUE;
  if (m->epilogue & EPILOGUE_AUX) {
    Layout argument{D->type, D->rows, D->columns, m->argument_ld};
    bool fits = m->argument_ld % 8 == 0 && m->argument_ld >= static_cast<int64_t>(D->rows) && D->batch == 1;
    if (!fits || reinterpret_cast<uintptr_t>(m->argument) % BIAS_ALIGNMENT || !there(argument, m->argument)) return INVALID_VALUE;
  }
  if (room && (reinterpret_cast<uintptr_t>(workspace) % WORKSPACE_ALIGNMENT || !deixis_known(workspace, room))) return INVALID_VALUE;
  if (rows == SLOW_ROWS) std::this_thread::sleep_for(std::chrono::milliseconds(SLEEP_MS[algorithm[0] - ALGORITHM]));
  if (rows == REFUSING_ROWS && algorithm[0] + 1 < ALGORITHM + ALGORITHMS) return NOT_SUPPORTED;
  float x = *static_cast<const float*>(alpha), y = *static_cast<const float*>(beta);
  // Descriptors and factors are read now, operands when the stream comes to it.
  Desc desc_now = *m;
  Layout la_now = *A, lb_now = *B, lc_now = *C, ld_now = *D;
  int code = deixis_host::submit(stream, "cublasLtMatmul", [=] {
    product(desc_now, la_now, lb_now, lc_now, ld_now, x, y, a, b, c, d);
    return 0;
  });
  return code ? EXECUTION_FAILED : SUCCESS;
}
}
