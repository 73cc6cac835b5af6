// A stand-in for libcuda.so.1, for tests on machines without a GPU: the calls of the driver API that
// the backend makes, answered by the CPU. A "module" is a shared library of kernels that g++ made.
//
// It finds what a GPU would let pass or turn into nonsense: device memory is poisoned with NaN and
// lies between guard zones of NaN that are checked after every launch, shared memory is poisoned for
// each block and guarded too, threads run in an order of the module's choosing, and a barrier or a
// shuffle that some threads do not reach, or an address where no memory is, is an error. Messages name
// kernel, block, thread and buffer; cuGetErrorString gives the last one.
#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "host.h"
#include "submit.h"

namespace deixis_host {
deixis_dim3 block_index, block_size, grid_size;
deixis_dim3* thread_index;
char* shared;

namespace {
constexpr size_t SHARED_DEFAULT = 48 << 10, SHARED_LIMIT = 227 << 10;

std::string last_error = "no error";
std::string kernel_name;
std::string trap;  // what a thread of this launch did that a device would stop at
std::mutex lock;

constexpr int INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201;

int fail(int code, const std::string& why) {
  last_error = why;
  return code;
}

std::string where() {
  char text[160];
  snprintf(text, sizeof text, "kernel %s, block (%u, %u, %u)", kernel_name.c_str(), block_index.x, block_index.y,
           block_index.z);
  return text;
}

std::string thread_text(const deixis_dim3& thread) {
  char text[80];
  snprintf(text, sizeof text, ", thread (%u, %u, %u)", thread.x, thread.y, thread.z);
  return text;
}
}  // namespace
}  // namespace deixis_host

#include "guards.h"
#include "fibers.h"

namespace deixis_host {
namespace {
struct Function {
  std::string name;
  Entry entry;
  size_t bytes;      // of its parameters
  unsigned threads;  // most of a block
  std::string order;  // in which they run
  size_t shared = SHARED_DEFAULT;  // dynamic shared memory that it may ask for
};
struct Module {
  void* library;
  std::map<std::string, Function> kernels;  // of which handles are given out
};

std::map<std::string, Function>* loading;  // registrations of the module that is being opened
std::set<const Function*> functions;

// The primary context: how often it is held, and whether it is this thread's own.
int retained;
thread_local bool current;

// 0 where the thread has a context, which all calls about a device's memory and work need.
int in_context(const char* call) {
  return current && retained > 0 ? 0 : fail(INVALID_CONTEXT, std::string(call) + ": this thread has no current context");
}
}  // namespace

Registration::Registration(const char* name, Entry e, size_t bytes, unsigned threads, const char* order) {
  (*loading)[name] = Function{name, e, bytes, threads, order};
}
}  // namespace deixis_host

#include "stream.h"

namespace {
constexpr uint64_t TOTAL = 4ull << 30;

int run_kernel(const Function& k, deixis_dim3 grid, deixis_dim3 block, unsigned shared_bytes,
               const std::vector<uint64_t>& words) {
  size_t n = static_cast<size_t>(block.x) * block.y * block.z;
  kernel_name = k.name;
  entry = k.entry;
  arguments = reinterpret_cast<const char*>(words.data());
  std::vector<std::pair<uint64_t, size_t>> buffers = reached(words.data(), words.size());
  grid_size = grid;
  block_size = block;
  fibers.assign(n, Fiber());
  warps.assign((n + 31) / 32, Warp());
  for (size_t i = 0; i < n; i++) {
    fibers[i].index = {static_cast<unsigned>(i % block.x), static_cast<unsigned>(i / block.x % block.y),
                       static_cast<unsigned>(i / block.x / block.y)};
    fibers[i].warp = i / 32;
    warps[i / 32].size++;
  }
  std::vector<std::vector<unsigned>> order = thread_order(n, k.order);
  std::vector<unsigned char> memory(shared_bytes + 2 * GUARD + 64);
  auto* base = reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(memory.data()) + GUARD + 31) / 32 * 32);
  shared = reinterpret_cast<char*>(base);
  put_guard(base - GUARD, GUARD);
  put_guard(base + shared_bytes, GUARD);
  FaultsCaught caught;
  // The thread of the present block that writes over a zone; "" where it does not do so again.
  auto culprit = [&](const unsigned char* zone) {
    put_guard(const_cast<unsigned char*>(zone), GUARD);
    memset(base, POISON, shared_bytes);
    watched = {zone, ""};
    run_block(order);
    watched.zone = nullptr;
    return watched.culprit;
  };
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        block_index = {x, y, z};
        memset(base, POISON, shared_bytes);
        trap.clear();
        if (int code = run_block(order)) return code;
        if (!trap.empty()) return fail(MISALIGNED_ADDRESS, trap);
        if (const unsigned char* zone = damaged(base, shared_bytes)) {
          last_error = where() + culprit(zone) + ": wrote " + (zone < base ? "before" : "beyond") + " its " +
                       std::to_string(shared_bytes) + " bytes of shared memory";
          return ILLEGAL_ADDRESS;
        }
        for (auto& [address, size] : buffers)
          if (const unsigned char* zone = damaged(address, size)) {
            report(where() + culprit(zone), address, size, zone);
            return ILLEGAL_ADDRESS;
          }
      }
  return check_guards() ? 0 : ILLEGAL_ADDRESS;
}
}  // namespace

extern "C" {
// For the stand-ins of libraries: whether the bytes lie in one buffer.
bool deixis_known(const void* address, size_t bytes) {
  std::lock_guard<std::mutex> g(lock);
  return known(reinterpret_cast<uint64_t>(address), bytes);
}
// Whether a stream is being captured: libraries must have made their plans by then.
bool deixis_capturing() {
  std::lock_guard<std::mutex> g(lock);
  return capturing() != nullptr;
}
int cuInit(unsigned) { return 0; }
// NVRTC asks for a private table, and takes no for an answer.
int cuGetExportTable(const void** table, const void*) {
  *table = nullptr;
  return fail(NOT_SUPPORTED, "no export tables here");
}
// DEIXIS_HOST_DRIVER stands for another driver, 12040 for one that ends at CUDA 12.4.
int cuDriverGetVersion(int* v) {
  const char* wish = getenv("DEIXIS_HOST_DRIVER");
  return *v = wish ? atoi(wish) : 13000, 0;
}
int cuDeviceGetCount(int* n) { return *n = 1, 0; }
int cuDeviceGet(int* device, int) { return *device = 0, 0; }
int cuDeviceGetName(char* name, int n, int) { return snprintf(name, n, "stand-in driver (CPU)"), 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = TOTAL, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case 16: *value = 4; break;                             // multiprocessors
    case 38: *value = 1 << 20; break;                       // bytes of the second-level cache
    case 75: *value = 9; break;                             // compute capability, major
    case 76: *value = 0; break;                             // and minor
    case 81: *value = static_cast<int>(SHARED_LIMIT + 1024); break;  // of a multiprocessor
    case 97: *value = static_cast<int>(SHARED_LIMIT); break;  // shared memory a block may ask for
    default: return fail(INVALID_VALUE, "device attribute " + std::to_string(attribute) + " is not kept");
  }
  return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) {
  std::lock_guard<std::mutex> g(lock);
  retained++;
  return *context = &lock, 0;
}
int cuDevicePrimaryCtxRelease_v2(int) {
  std::lock_guard<std::mutex> g(lock);
  if (retained == 0) return fail(INVALID_CONTEXT, "cuDevicePrimaryCtxRelease of a context that is not held");
  retained--;
  return 0;
}
int cuCtxSetCurrent(void* context) {
  std::lock_guard<std::mutex> g(lock);
  if (context && context != &lock) return fail(INVALID_CONTEXT, "cuCtxSetCurrent: no such context");
  current = context != nullptr;
  return 0;
}
int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuMemGetInfo")) return code;
  *free_bytes = TOTAL - in_use;
  *total = TOTAL;
  return 0;
}
int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuMemAlloc")) return code;
  if (bytes == 0) return fail(INVALID_VALUE, "cuMemAlloc of 0 bytes");
  if (Stream* s = capturing(); s && s->mode != MODE_RELAXED) return spoil(s, "cuMemAlloc");
  if (in_use + bytes > TOTAL) return fail(OUT_OF_MEMORY, "out of memory");
  size_t whole = (bytes + 2 * GUARD + 511) / 256 * 256;
  auto* p = static_cast<unsigned char*>(aligned_alloc(256, whole));
  if (!p) return fail(OUT_OF_MEMORY, "out of memory");
  put_guard(p, GUARD);
  memset(p + GUARD, POISON, bytes);
  put_guard(p + GUARD + bytes, whole - GUARD - bytes);
  *address = reinterpret_cast<uint64_t>(p + GUARD);
  allocations[*address] = bytes;
  in_use += bytes;
  return 0;
}
int cuMemFree_v2(uint64_t address) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuMemFree")) return code;
  auto it = allocations.find(address);
  if (it == allocations.end()) return fail(INVALID_VALUE, "cuMemFree of an address that cuMemAlloc did not give");
  if (int code = outside_capture("cuMemFree")) return code;
  int code = drain_all();
  forget(address, it->second);
  in_use -= it->second;
  allocations.erase(it);
  free(reinterpret_cast<char*>(address) - GUARD);
  return code;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuMemcpyHtoDAsync")) return code;
  if (!known(to, bytes)) return fail(INVALID_VALUE, "copy to the device leaves its buffer");
  return host_copy("copy to the device", stream, from, bytes, [=] {
    if (!known(to, bytes)) return fail(ILLEGAL_ADDRESS, "copy into memory that was freed");
    memcpy(reinterpret_cast<void*>(to), from, bytes);
    return 0;
  });
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuMemcpyDtoHAsync")) return code;
  if (!known(from, bytes)) return fail(INVALID_VALUE, "copy from the device leaves its buffer");
  return host_copy("copy from the device", stream, to, bytes, [=] {
    if (!known(from, bytes)) return fail(ILLEGAL_ADDRESS, "copy from memory that was freed");
    memcpy(to, reinterpret_cast<void*>(from), bytes);
    return 0;
  });
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
  return submit(stream, "copy on the device", [=] {
    if (!known(to, bytes) || !known(from, bytes)) return fail(INVALID_VALUE, "copy on the device leaves its buffer");
    memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
    return 0;
  });
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
  return submit(stream, "memset", [=] {
    if (!known(to, bytes)) return fail(INVALID_VALUE, "memset leaves its buffer");
    memset(reinterpret_cast<void*>(to), value, bytes);
    return 0;
  });
}
// The image is the path of a shared library, ended by 0.
int cuModuleLoadData(void** module, const void* image) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuModuleLoadData")) return code;
  if (int code = outside_capture("cuModuleLoadData")) return code;
  auto* m = new Module;
  loading = &m->kernels;
  m->library = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
  if (!m->library) {
    std::string why = dlerror();
    delete m;
    return fail(INVALID_VALUE, why);
  }
  // Opened before, it registers nothing again.
  static std::map<void*, std::map<std::string, Function>> opened;
  auto& kernels = opened[m->library];
  if (kernels.empty()) kernels = m->kernels;
  m->kernels = kernels;
  *module = m;
  return 0;
}
int cuModuleUnload(void* module) {
  std::lock_guard<std::mutex> g(lock);
  auto* m = static_cast<Module*>(module);
  for (auto& [name, k] : m->kernels) functions.erase(&k);
  delete m;
  return 0;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  std::lock_guard<std::mutex> g(lock);
  auto* m = static_cast<Module*>(module);
  auto it = m->kernels.find(name);
  if (it == m->kernels.end()) return fail(NOT_FOUND, std::string("no kernel ") + name + " in this module");
  functions.insert(&it->second);
  *function = &it->second;
  return 0;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
  std::lock_guard<std::mutex> g(lock);
  auto* k = static_cast<Function*>(function);
  if (!functions.count(k)) return fail(INVALID_VALUE, "cuFuncSetAttribute: no such kernel");
  if (attribute != 8) return fail(INVALID_VALUE, "function attribute " + std::to_string(attribute) + " is not kept");
  if (value < 0 || static_cast<size_t>(value) > SHARED_LIMIT)
    return fail(INVALID_VALUE, "kernel " + k->name + ": no block may have " + std::to_string(value) + " bytes of shared memory");
  k->shared = value;
  return 0;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared_bytes, void* stream, void** params, void** extra) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuLaunchKernel")) return code;
  auto* k = static_cast<Function*>(function);
  if (!functions.count(k)) return fail(INVALID_VALUE, "cuLaunchKernel: no such kernel");
  size_t n = static_cast<size_t>(bx) * by * bz;
  std::string name = "kernel " + k->name;
  if (gx == 0 || gy == 0 || gz == 0 || gx > 0x7fffffff || gy > 65535 || gz > 65535)
    return fail(INVALID_VALUE, name + ": launch shape out of range");
  if (n == 0 || n > k->threads || bz > 64)
    return fail(INVALID_VALUE, name + ": " + std::to_string(n) + " threads a block; it was compiled for " + std::to_string(k->threads));
  if (shared_bytes > k->shared)
    return fail(INVALID_VALUE, name + ": asks for " + std::to_string(shared_bytes) + " bytes of shared memory");
  if (params || !extra || extra[0] != reinterpret_cast<void*>(1) || extra[2] != reinterpret_cast<void*>(2) || extra[4])
    return fail(INVALID_VALUE, name + ": arguments must come as one packed buffer");
  size_t given = *static_cast<size_t*>(extra[3]);
  if (given != k->bytes)
    return fail(INVALID_VALUE, name + ": arguments of " + std::to_string(given) + " bytes; its parameters have " + std::to_string(k->bytes));
  // As on the device, warps are cut from the linear thread index; ours never straddle a row.
  if (n > 32 && bx % 32 != 0 && by * bz > 1) return fail(INVALID_VALUE, name + ": rows of threads that are not whole warps");
  std::vector<uint64_t> words((given + 7) / 8);
  memcpy(words.data(), extra[1], given);
  auto run = [=] {
    return run_kernel(*k, {gx, gy, gz}, {bx, by, bz}, shared_bytes, words);
  };
  return give(stream, {k->name, run, words}, false);
}
int cuGetErrorName(int, const char** name) { return *name = "CUDA_ERROR", 0; }
int cuGetErrorString(int, const char** text) { return *text = last_error.c_str(), 0; }
}
