// A stand-in for cuDNN 9 (libcudnn_cnn.so.9, where the convolution lives): the calls that the backend
// makes, by plain loops over the stand-in driver's memory. It keeps the library's rules (descriptors
// that fit each other, one layout for pictures and filter, fp32 accumulation, workspace as asked for,
// 16-byte addresses) and refuses everything else; cudnnGetErrorString says what was wrong.
//
// It is stricter than the library where we promise more: an algorithm that sums in no fixed order,
// TF32 for fp32, and operands outside of their buffer are refused. Workspace is overwritten with NaN.
// Kernels beyond 11×11 have no algorithm here, so that a test can see what then happens.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "host.h"
#include "submit.h"

extern "C" bool deixis_known(const void* address, size_t bytes);
extern "C" bool deixis_capturing();

namespace {
constexpr int SUCCESS = 0, BAD_PARAM = 2000, NOT_SUPPORTED = 3000, EXECUTION_FAILED = 5000;
constexpr int FLOAT = 0, HALF = 2, BFLOAT16 = 9, NHWC = 1, CROSS_CORRELATION = 1;
constexpr int TENSOR_OP = 1, FMA = 3, MOST_KERNEL = 11;
constexpr int PRECOMP_GEMM = 1, IMPLICIT_GEMM = 0, WINOGRAD_NONFUSED = 7, BACKWARD_0 = 0, BACKWARD_1 = 1;
constexpr uint32_t HANDLE = 0xD0, TENSOR = 0xD1, FILTER = 0xD2, CONVOLUTION = 0xD3;

struct Object {
  uint32_t kind;
  bool set = false;
};
struct Handle : Object {
  void* stream = nullptr;
};
struct Tensor : Object {  // of a filter: n is K, c is C
  int type, n, c, h, w;
  size_t size() const { return static_cast<size_t>(n) * c * h * w; }
  size_t bytes() const { return size() * (type == FLOAT ? 4 : 2); }
};
struct Convolution : Object {
  int pad, stride, math = -1;
};
// As the library lays it out.
struct Perf {
  int algo, status;
  float time;
  size_t memory;
  int determinism, math, reserved[3];
};

std::string last;

int refuse(int code, const std::string& why) {
  last = (code == BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM: " : "CUDNN_STATUS_NOT_SUPPORTED: ") + why;
  return code;
}
template <class O>
int create(void** made, uint32_t kind) {
  if (!made) return refuse(BAD_PARAM, "nowhere to put it");
  auto* o = new O;
  o->kind = kind;
  *made = o;
  return SUCCESS;
}
// A destroyed object keeps its memory, marked, so that a later use of it is seen.
int destroy(void* object, uint32_t kind) {
  auto* o = static_cast<Object*>(object);
  if (!o || o->kind != kind) return refuse(BAD_PARAM, "destroys what is not there");
  o->kind = 0;
  return SUCCESS;
}
bool is(const void* object, uint32_t kind, bool set = true) {
  auto* o = static_cast<const Object*>(object);
  return o && o->kind == kind && (o->set || !set);
}
bool known_type(int type) { return type == FLOAT || type == HALF || type == BFLOAT16; }

int set4d(void* object, uint32_t kind, int layout, int type, int n, int c, int h, int w) {
  if (!is(object, kind, false)) return refuse(BAD_PARAM, "descriptor of another kind");
  if (!known_type(type)) return refuse(NOT_SUPPORTED, "data type " + std::to_string(type));
  if (layout != NHWC) return refuse(NOT_SUPPORTED, "layout " + std::to_string(layout) + ": ours is channels-last");
  if (n < 1 || c < 1 || h < 1 || w < 1) return refuse(BAD_PARAM, "an extent below 1");
  auto* t = static_cast<Tensor*>(object);
  t->type = type, t->n = n, t->c = c, t->h = h, t->w = w;
  t->set = true;
  return SUCCESS;
}

std::string numbers(int a, int b, int c, int d) {
  return std::to_string(a) + "×" + std::to_string(b) + "×" + std::to_string(c) + "×" + std::to_string(d);
}

// What every call checks: x (n, c, h, w) with filter (k, c, r, s) gives y.
int fit(void* handle, void* xd, void* wd, void* cd, void* yd) {
  if (!is(handle, HANDLE, false)) return refuse(BAD_PARAM, "no handle");
  if (!static_cast<Handle*>(handle)->stream) return refuse(BAD_PARAM, "no stream was set");
  if (!is(xd, TENSOR) || !is(yd, TENSOR) || !is(wd, FILTER) || !is(cd, CONVOLUTION))
    return refuse(BAD_PARAM, "a descriptor is missing, of another kind, destroyed, or was never set");
  auto *x = static_cast<Tensor*>(xd), *y = static_cast<Tensor*>(yd), *w = static_cast<Tensor*>(wd);
  auto* c = static_cast<Convolution*>(cd);
  if (x->type != y->type || x->type != w->type) return refuse(BAD_PARAM, "operands of several types");
  if (c->math != (x->type == FLOAT ? FMA : TENSOR_OP))
    return refuse(BAD_PARAM, "math type " + std::to_string(c->math) + " would lose digits or the tensor cores");
  if (w->c != x->c) return refuse(BAD_PARAM, "filter of " + std::to_string(w->c) + " channels, x of " + std::to_string(x->c));
  int h = (x->h + 2 * c->pad - w->h) / c->stride + 1, v = (x->w + 2 * c->pad - w->w) / c->stride + 1;
  if (y->n != x->n || y->c != w->n || y->h != h || y->w != v)
    return refuse(BAD_PARAM, "y is " + numbers(y->n, y->c, y->h, y->w) + ", the convolution gives " + numbers(x->n, w->n, h, v));
  return SUCCESS;
}

// Kernels of so many rows: the heuristic does not know them; all but IMPLICIT_GEMM is proposed and then refused.
constexpr int UNKNOWN_KERNEL = 10, REFUSED_KERNEL = 9;

size_t needed(const Tensor* x, int algorithm) { return algorithm == IMPLICIT_GEMM ? 0 : 64 + x->bytes() / 4; }

// Proposals, the best first: one that we may not take comes before those that we may.
int propose(const Tensor* x, const Tensor* w, bool forward, int wanted, int* found, Perf* all) {
  if (wanted < 1 || !found || !all) return refuse(BAD_PARAM, "no room for proposals");
  if (deixis_capturing()) return refuse(NOT_SUPPORTED, "a plan is made while a stream is captured");
  if (w->h == UNKNOWN_KERNEL) return refuse(NOT_SUPPORTED, "kernels of 10 rows");
  int math = x->type == FLOAT ? FMA : TENSOR_OP;
  Perf proposals[] = {
      {forward ? WINOGRAD_NONFUSED : BACKWARD_0, SUCCESS, -1, 0, forward ? 1 : 0, math, {}},
      {forward ? PRECOMP_GEMM : BACKWARD_1, SUCCESS, -1, needed(x, 1), 1, math, {}},
      {IMPLICIT_GEMM, SUCCESS, -1, 0, 1, math, {}},
  };
  *found = 0;
  for (Perf& p : proposals) {
    if (*found == std::min(wanted, forward ? 3 : 2)) break;
    if (w->h > MOST_KERNEL) p.status = NOT_SUPPORTED;
    all[(*found)++] = p;
  }
  return SUCCESS;
}

int size_of(const Tensor* x, const Tensor* w, bool forward, int algorithm, size_t* bytes) {
  if (w->h > MOST_KERNEL) return refuse(NOT_SUPPORTED, "kernels beyond 11×11");
  if (algorithm != PRECOMP_GEMM && !(forward && algorithm == IMPLICIT_GEMM))
    return refuse(NOT_SUPPORTED, "algorithm " + std::to_string(algorithm) + " is not exact or has no fixed order");
  *bytes = needed(x, algorithm);
  return SUCCESS;
}

int operand(const void* p, const Tensor* t, const char* name) {
  if (!p || reinterpret_cast<uintptr_t>(p) % 16) return refuse(BAD_PARAM, std::string(name) + " does not begin at 16 bytes");
  if (!deixis_known(p, t->bytes())) return refuse(BAD_PARAM, std::string(name) + " is smaller than its descriptor");
  return SUCCESS;
}

int ready(const Tensor* x, const void* px, const Tensor* w, const void* pw, const Tensor* y, const void* py, bool forward,
          int algorithm, void* workspace, size_t bytes, const void* alpha, const void* beta) {
  size_t least = 0;
  if (w->h == REFUSED_KERNEL && !(forward && algorithm == IMPLICIT_GEMM)) return refuse(NOT_SUPPORTED, "kernels of 9 rows");
  if (int code = size_of(x, w, forward, algorithm, &least)) return code;
  if (bytes < least) return refuse(BAD_PARAM, "a workspace of " + std::to_string(bytes) + " bytes, not " + std::to_string(least));
  if (bytes && (!workspace || !deixis_known(workspace, bytes))) return refuse(BAD_PARAM, "workspace is not there");
  if (int code = operand(px, x, "x")) return code;
  if (int code = operand(pw, w, "the filter")) return code;
  if (int code = operand(py, y, "y")) return code;
  if (!alpha || !beta || *static_cast<const float*>(alpha) != 1 || *static_cast<const float*>(beta) != 0)
    return refuse(NOT_SUPPORTED, "alpha and beta other than 1 and 0");
  return SUCCESS;
}

float load(const void* p, int type, size_t i) {
  if (type == FLOAT) return static_cast<const float*>(p)[i];
  uint16_t bits = static_cast<const uint16_t*>(p)[i];
  return type == HALF ? deixis_host::half_to_float(bits) : __uint_as_float(static_cast<uint32_t>(bits) << 16);
}
void store(void* p, int type, size_t i, float v) {
  if (type == FLOAT) {
    static_cast<float*>(p)[i] = v;
  } else if (type == HALF) {
    static_cast<uint16_t*>(p)[i] = deixis_host::float_to_half(v);
  } else {
    uint32_t bits = __float_as_uint(v);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    static_cast<uint16_t*>(p)[i] = static_cast<uint16_t>(nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
}
size_t at(const Tensor* t, int n, int h, int w, int c) { return ((static_cast<size_t>(n) * t->h + h) * t->w + w) * t->c + c; }

// Every product of the convolution once: visit(x, filter, y) gets their element numbers.
template <class F>
void each(const Tensor* x, const Tensor* w, const Tensor* y, const Convolution* c, F visit) {
  for (int n = 0; n < y->n; n++)
    for (int oy = 0; oy < y->h; oy++)
      for (int ox = 0; ox < y->w; ox++)
        for (int r = 0; r < w->h; r++)
          for (int s = 0; s < w->w; s++) {
            int iy = oy * c->stride + r - c->pad, ix = ox * c->stride + s - c->pad;
            if (iy < 0 || iy >= x->h || ix < 0 || ix >= x->w) continue;
            for (int k = 0; k < w->n; k++)
              for (int i = 0; i < w->c; i++) visit(at(x, n, iy, ix, i), at(w, k, r, s, i), at(y, n, oy, ox, k));
          }
}
// Descriptors are read now, operands when the stream comes to it: target gets the sums of what
// visit adds up for every product.
template <class F>
int compute(void* handle, const char* what, const Tensor& x, const Tensor& w, const Tensor& y, const Convolution& c,
            void* workspace, size_t bytes, const Tensor& target, void* to, F visit) {
  auto work = [=] {
    if (bytes) memset(workspace, 0xFF, bytes);
    std::vector<float> sums(target.size());
    each(&x, &w, &y, &c, [&](size_t i, size_t j, size_t k) { visit(sums.data(), i, j, k); });
    for (size_t i = 0; i < sums.size(); i++) store(to, target.type, i, sums[i]);
    return 0;
  };
  return deixis_host::submit(static_cast<Handle*>(handle)->stream, what, work) ? EXECUTION_FAILED : SUCCESS;
}
}  // namespace

extern "C" {
const char* cudnnGetErrorString(int code) { return code == SUCCESS ? "CUDNN_STATUS_SUCCESS" : last.c_str(); }
int cudnnCreate(void** handle) { return create<Handle>(handle, HANDLE); }
int cudnnDestroy(void* handle) { return destroy(handle, HANDLE); }
int cudnnSetStream(void* handle, void* stream) {
  if (!is(handle, HANDLE, false) || !stream) return refuse(BAD_PARAM, "no handle or no stream");
  return static_cast<Handle*>(handle)->stream = stream, SUCCESS;
}
int cudnnCreateTensorDescriptor(void** d) { return create<Tensor>(d, TENSOR); }
int cudnnDestroyTensorDescriptor(void* d) { return destroy(d, TENSOR); }
int cudnnCreateFilterDescriptor(void** d) { return create<Tensor>(d, FILTER); }
int cudnnDestroyFilterDescriptor(void* d) { return destroy(d, FILTER); }
int cudnnCreateConvolutionDescriptor(void** d) { return create<Convolution>(d, CONVOLUTION); }
int cudnnDestroyConvolutionDescriptor(void* d) { return destroy(d, CONVOLUTION); }
int cudnnSetTensor4dDescriptor(void* d, int layout, int type, int n, int c, int h, int w) {
  return set4d(d, TENSOR, layout, type, n, c, h, w);
}
int cudnnSetFilter4dDescriptor(void* d, int type, int layout, int k, int c, int h, int w) {
  return set4d(d, FILTER, layout, type, k, c, h, w);
}
int cudnnSetConvolution2dDescriptor(void* d, int padH, int padW, int u, int v, int dilationH, int dilationW, int mode, int compute) {
  if (!is(d, CONVOLUTION, false)) return refuse(BAD_PARAM, "descriptor of another kind");
  if (padH < 0 || padH != padW || u < 1 || u != v || dilationH != 1 || dilationW != 1)
    return refuse(BAD_PARAM, "padding, stride or dilation that is none of ours");
  if (mode != CROSS_CORRELATION || compute != FLOAT) return refuse(BAD_PARAM, "not a cross-correlation summed in fp32");
  auto* c = static_cast<Convolution*>(d);
  c->pad = padH, c->stride = u;
  c->set = true;
  return SUCCESS;
}
int cudnnSetConvolutionMathType(void* d, int math) {
  if (!is(d, CONVOLUTION)) return refuse(BAD_PARAM, "descriptor of another kind");
  return static_cast<Convolution*>(d)->math = math, SUCCESS;
}
int cudnnGetConvolutionForwardAlgorithm_v7(void* h, void* x, void* w, void* c, void* y, int wanted, int* found, Perf* all) {
  if (int code = fit(h, x, w, c, y)) return code;
  return propose(static_cast<Tensor*>(x), static_cast<Tensor*>(w), true, wanted, found, all);
}
int cudnnGetConvolutionBackwardDataAlgorithm_v7(void* h, void* w, void* y, void* c, void* x, int wanted, int* found, Perf* all) {
  if (int code = fit(h, x, w, c, y)) return code;
  return propose(static_cast<Tensor*>(x), static_cast<Tensor*>(w), false, wanted, found, all);
}
int cudnnGetConvolutionBackwardFilterAlgorithm_v7(void* h, void* x, void* y, void* c, void* w, int wanted, int* found, Perf* all) {
  if (int code = fit(h, x, w, c, y)) return code;
  return propose(static_cast<Tensor*>(x), static_cast<Tensor*>(w), false, wanted, found, all);
}
int cudnnGetConvolutionForwardWorkspaceSize(void* h, void* x, void* w, void* c, void* y, int algorithm, size_t* bytes) {
  if (int code = fit(h, x, w, c, y)) return code;
  return size_of(static_cast<Tensor*>(x), static_cast<Tensor*>(w), true, algorithm, bytes);
}
int cudnnGetConvolutionBackwardDataWorkspaceSize(void* h, void* w, void* y, void* c, void* x, int algorithm, size_t* bytes) {
  if (int code = fit(h, x, w, c, y)) return code;
  return size_of(static_cast<Tensor*>(x), static_cast<Tensor*>(w), false, algorithm, bytes);
}
int cudnnGetConvolutionBackwardFilterWorkspaceSize(void* h, void* x, void* y, void* c, void* w, int algorithm, size_t* bytes) {
  if (int code = fit(h, x, w, c, y)) return code;
  return size_of(static_cast<Tensor*>(x), static_cast<Tensor*>(w), false, algorithm, bytes);
}
int cudnnConvolutionForward(void* h, const void* alpha, void* xd, const void* px, void* wd, const void* pw, void* cd, int algorithm,
                            void* workspace, size_t bytes, const void* beta, void* yd, void* py) {
  if (int code = fit(h, xd, wd, cd, yd)) return code;
  auto *x = static_cast<Tensor*>(xd), *w = static_cast<Tensor*>(wd), *y = static_cast<Tensor*>(yd);
  if (int code = ready(x, px, w, pw, y, py, true, algorithm, workspace, bytes, alpha, beta)) return code;
  int type = x->type;
  return compute(h, "cudnnConvolutionForward", *x, *w, *y, *static_cast<Convolution*>(cd), workspace, bytes, *y, py,
                 [=](float* sums, size_t i, size_t j, size_t k) { sums[k] += load(px, type, i) * load(pw, type, j); });
}
int cudnnConvolutionBackwardData(void* h, const void* alpha, void* wd, const void* pw, void* yd, const void* py, void* cd, int algorithm,
                                 void* workspace, size_t bytes, const void* beta, void* xd, void* px) {
  if (int code = fit(h, xd, wd, cd, yd)) return code;
  auto *x = static_cast<Tensor*>(xd), *w = static_cast<Tensor*>(wd), *y = static_cast<Tensor*>(yd);
  if (int code = ready(x, px, w, pw, y, py, false, algorithm, workspace, bytes, alpha, beta)) return code;
  int type = x->type;
  return compute(h, "cudnnConvolutionBackwardData", *x, *w, *y, *static_cast<Convolution*>(cd), workspace, bytes, *x, px,
                 [=](float* sums, size_t i, size_t j, size_t k) { sums[i] += load(pw, type, j) * load(py, type, k); });
}
int cudnnConvolutionBackwardFilter(void* h, const void* alpha, void* xd, const void* px, void* yd, const void* py, void* cd, int algorithm,
                                   void* workspace, size_t bytes, const void* beta, void* wd, void* pw) {
  if (int code = fit(h, xd, wd, cd, yd)) return code;
  auto *x = static_cast<Tensor*>(xd), *w = static_cast<Tensor*>(wd), *y = static_cast<Tensor*>(yd);
  if (int code = ready(x, px, w, pw, y, py, false, algorithm, workspace, bytes, alpha, beta)) return code;
  int type = x->type;
  return compute(h, "cudnnConvolutionBackwardFilter", *x, *w, *y, *static_cast<Convolution*>(cd), workspace, bytes, *w, pw,
                 [=](float* sums, size_t i, size_t j, size_t k) { sums[j] += load(px, type, i) * load(py, type, k); });
}
}
