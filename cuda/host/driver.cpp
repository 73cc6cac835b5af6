// A stand-in for libcuda.so.1, for tests on machines without a GPU: the calls of the driver API that
// the backend makes, answered by the CPU. A "module" is a shared library of kernels that g++ made.
//
// It finds what a GPU would let pass or turn into nonsense: device memory is poisoned with NaN and
// lies between guard zones that are checked after every launch, shared memory is poisoned for each
// block and guarded too, threads run in an order of one's choosing (DEIXIS_HOST_ORDER: forward,
// reverse, or a number that seeds a shuffle), and a barrier or a shuffle that some threads do not
// reach is an error. Messages name kernel, block, thread and buffer; cuGetErrorString gives the last one.
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
constexpr size_t STACK = 64 << 10;
constexpr size_t GUARD = 256;
constexpr unsigned char GUARD_BYTE = 0xA5;
constexpr unsigned char POISON = 0xFF;  // NaN in every floating type
constexpr size_t SHARED_DEFAULT = 48 << 10, SHARED_LIMIT = 227 << 10;

enum class State { READY, BARRIER, WARP, DONE };

struct Fiber {
  State state;
  void* sp;
  unsigned long generation;
  deixis_dim3 index;
  unsigned warp;
  char* stack;
};

struct Warp {
  Words slots[2][32];
  unsigned long generation;  // exchanges completed
  unsigned arrived, size;
};

std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::vector<char*> stacks;
Fiber* running;
void* scheduler_sp;
Entry entry;
const char* arguments;
std::string last_error = "no error";
std::string kernel_name;
std::string trap;  // what a thread of this launch did that a device would stop at
std::mutex lock;

// A guard zone that is known to be written over: which thread of a block did so is found by running the block again
// and looking after each turn of a thread.
struct Watched {
  const unsigned char* zone = nullptr;
  size_t size = 0;
  std::string culprit;
} watched;

constexpr int INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201;

int fail(int code, const std::string& why) {
  last_error = why;
  return code;
}

// Saves what the System V ABI asks a callee to keep, and goes on where `to` was saved.
extern "C" void deixis_switch(void** from, void* to);
#if !defined(__x86_64__)
#error "the stand-in driver switches fibers in x86-64 assembly; add this machine's"
#endif
asm(R"(
.text
.globl deixis_switch
.type deixis_switch,@function
deixis_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size deixis_switch,.-deixis_switch
)");

void fiber_main() {
  entry(arguments);
  running->state = State::DONE;
  deixis_switch(&running->sp, scheduler_sp);
  abort();
}

void wait(State why) {
  running->state = why;
  Fiber* self = running;
  deixis_switch(&self->sp, scheduler_sp);
}

void start(Fiber& f) {
  if (stacks.empty()) {
    void* m = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED) abort();
    stacks.push_back(static_cast<char*>(m));
  }
  f.stack = stacks.back();
  stacks.pop_back();
  void** top = reinterpret_cast<void**>(f.stack + STACK);
  *--top = nullptr;  // so that the stack is aligned as after a call
  *--top = reinterpret_cast<void*>(fiber_main);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  f.sp = top;
}

std::string where() {
  char text[160];
  snprintf(text, sizeof text, "kernel %s, block (%u, %u, %u)", kernel_name.c_str(), block_index.x, block_index.y,
           block_index.z);
  return text;
}

bool intact(const unsigned char* p, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (p[i] != GUARD_BYTE) return false;
  return true;
}

void look(const deixis_dim3& thread) {
  if (!watched.culprit.empty() || intact(watched.zone, watched.size)) return;
  char text[80];
  snprintf(text, sizeof text, ", thread (%u, %u, %u)", thread.x, thread.y, thread.z);
  watched.culprit = text;
}

// Runs one block to its end; false, with last_error set, when its threads wait for each other.
bool run_block(const std::vector<std::vector<unsigned>>& order) {
  size_t n = fibers.size();
  for (Warp& w : warps) w.generation = w.arrived = 0;
  for (Fiber& f : fibers) {
    f.state = State::READY;
    f.sp = nullptr;
    f.generation = 0;
  }
  size_t done = 0;
  while (done < n) {
    bool moved = false;
    // A warp runs as far as it can before the next one does: shuffles would otherwise keep warps in
    // step, and hide that a barrier is missing between them.
    for (const std::vector<unsigned>& threads : order) {
      for (bool again = true; again;) {
        again = false;
        for (unsigned i : threads) {
          Fiber& f = fibers[i];
          if (f.state == State::WARP && warps[f.warp].generation > f.generation) f.state = State::READY;
          if (f.state != State::READY) continue;
          if (!f.sp) start(f);
          running = &f;
          thread_index = &f.index;
          deixis_switch(&scheduler_sp, f.sp);
          if (watched.zone) look(f.index);
          moved = again = true;
          if (f.state == State::DONE) {
            done++;
            stacks.push_back(f.stack);
          }
        }
      }
    }
    if (moved) continue;
    size_t waiting = 0;
    for (Fiber& f : fibers) waiting += f.state == State::BARRIER;
    if (waiting == n) {
      for (Fiber& f : fibers) f.state = State::READY;
      continue;
    }
    char text[120];
    snprintf(text, sizeof text, ": %zu threads wait at a barrier, %zu in a shuffle, %zu have left", waiting,
             n - done - waiting, done);
    last_error = where() + text;
    for (Fiber& f : fibers)
      if (f.state != State::DONE && f.sp) stacks.push_back(f.stack);
    return false;
  }
  return true;
}

// ---- memory

std::map<uint64_t, size_t> allocations;  // address to size
uint64_t in_use;

// The zone beside a buffer that was written over, or null.
const unsigned char* damaged(uint64_t address, size_t size) {
  auto* p = reinterpret_cast<const unsigned char*>(address);
  return !intact(p - GUARD, GUARD) ? p - GUARD : !intact(p + size, GUARD) ? p + size : nullptr;
}

// Says so in last_error, and mends the zones.
void report(const std::string& who, uint64_t address, size_t size, const unsigned char* zone) {
  auto* p = reinterpret_cast<unsigned char*>(address);
  last_error = who + ": wrote " + (zone < p ? "before" : "beyond") + " a buffer of " + std::to_string(size) + " bytes";
  memset(p - GUARD, GUARD_BYTE, GUARD);
  memset(p + size, GUARD_BYTE, GUARD);
}

// False, with last_error set and the zones mended, when a kernel wrote beside a buffer.
bool guarded(const std::string& who, uint64_t address, size_t size) {
  const unsigned char* zone = damaged(address, size);
  if (zone) report(who, address, size, zone);
  return !zone;
}

bool check_guards() {
  for (auto& [address, size] : allocations)
    if (!guarded("kernel " + kernel_name, address, size)) return false;
  return true;
}

// The buffers that a launch's arguments point into: looked at after each block, to name it.
std::vector<std::pair<uint64_t, size_t>> reached(const uint64_t* words, size_t count) {
  std::vector<std::pair<uint64_t, size_t>> found;
  for (size_t i = 0; i < count; i++) {
    auto it = allocations.upper_bound(words[i]);
    if (it == allocations.begin()) continue;
    --it;
    if (words[i] <= it->first + it->second) found.push_back(*it);
  }
  return found;
}

bool known(uint64_t address, size_t bytes) {
  auto it = allocations.upper_bound(address);
  if (it == allocations.begin()) return false;
  --it;
  return address + bytes <= it->first + it->second;
}

struct Function {
  std::string name;
  Entry entry;
  size_t bytes;      // of its parameters
  unsigned threads;  // most of a block
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

// Threads by warps, warps in the order of their first thread.
std::vector<std::vector<unsigned>> thread_order(size_t n) {
  std::vector<unsigned> order(n);
  for (size_t i = 0; i < n; i++) order[i] = i;
  const char* wish = getenv("DEIXIS_HOST_ORDER");
  if (wish && !strcmp(wish, "reverse")) {
    std::reverse(order.begin(), order.end());
  } else if (wish && *wish >= '0' && *wish <= '9') {
    std::mt19937 random(atoi(wish));
    std::shuffle(order.begin(), order.end(), random);
  }
  std::vector<std::vector<unsigned>> whole;
  std::vector<size_t> place((n + 31) / 32, n);
  for (unsigned i : order) {
    size_t& at = place[i / 32];
    if (at == n) {
      at = whole.size();
      whole.emplace_back();
    }
    whole[at].push_back(i);
  }
  return whole;
}
}  // namespace

Registration::Registration(const char* name, Entry e, size_t bytes, unsigned threads) {
  (*loading)[name] = Function{name, e, bytes, threads};
}

void barrier() { wait(State::BARRIER); }

const Words* share(const uint32_t* own, int count) {
  Warp& w = warps[running->warp];
  unsigned long g = w.generation;
  memcpy(w.slots[g & 1][running->index.x % 32].word, own, count * sizeof(uint32_t));
  if (++w.arrived == w.size) {
    w.arrived = 0;
    w.generation++;
  } else {
    running->generation = g;
    wait(State::WARP);
  }
  return w.slots[g & 1];
}

uint32_t exchange(uint32_t value, int source) { return share(&value, 1)[source & 31].word[0]; }

uint32_t ballot(uint32_t value) {
  const Words* all = share(&value, 1);
  uint32_t bits = 0;
  for (unsigned lane = 0; lane < warps[running->warp].size; lane++) bits |= (all[lane].word[0] != 0 ? 1u : 0u) << lane;
  return bits;
}

void check_aligned(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes == 0 || !trap.empty()) return;
  char text[120];
  snprintf(text, sizeof text, ", thread (%u, %u, %u): moves %zu bytes at once at an address that is no multiple of it",
           thread_index->x, thread_index->y, thread_index->z, bytes);
  trap = where() + text;
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
  std::vector<std::vector<unsigned>> order = thread_order(n);
  std::vector<unsigned char> memory(shared_bytes + 2 * GUARD + 64);
  auto* base = reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(memory.data()) + GUARD + 31) / 32 * 32);
  shared = reinterpret_cast<char*>(base);
  memset(base + shared_bytes, GUARD_BYTE, GUARD - 32);
  // The thread of the present block that writes over a zone; "" where it does not do so again.
  auto culprit = [&](const unsigned char* zone, size_t size) {
    memset(const_cast<unsigned char*>(zone), GUARD_BYTE, size);
    memset(base, POISON, shared_bytes);
    watched = {zone, size, ""};
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
        if (!run_block(order)) return LAUNCH_FAILED;
        if (!trap.empty()) return fail(MISALIGNED_ADDRESS, trap);
        if (!intact(base + shared_bytes, GUARD - 32)) {
          last_error = where() + culprit(base + shared_bytes, GUARD - 32) + ": wrote beyond its " +
                       std::to_string(shared_bytes) + " bytes of shared memory";
          return ILLEGAL_ADDRESS;
        }
        for (auto& [address, size] : buffers)
          if (const unsigned char* zone = damaged(address, size)) {
            report(where() + culprit(zone, GUARD), address, size, zone);
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
int cuDriverGetVersion(int* v) { return *v = 13000, 0; }
int cuDeviceGetCount(int* n) { return *n = 1, 0; }
int cuDeviceGet(int* device, int) { return *device = 0, 0; }
int cuDeviceGetName(char* name, int n, int) { return snprintf(name, n, "stand-in driver (CPU)"), 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = TOTAL, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case 16: *value = 4; break;                             // multiprocessors
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
  memset(p, GUARD_BYTE, whole);
  memset(p + GUARD, POISON, bytes);
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
