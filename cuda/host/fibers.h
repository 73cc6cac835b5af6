// One fiber for each thread of a block, and the scheduler that runs them by turns; a part of driver.cpp.
#pragma once

namespace deixis_host {
namespace {
constexpr size_t PAGE = 4 << 10, STACK = 64 << 10;

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
    void* m = mmap(nullptr, PAGE + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED || mprotect(m, PAGE, PROT_NONE) != 0) abort();
    stacks.push_back(static_cast<char*>(m) + PAGE);  // running out of it is a fault
  }
  f.stack = stacks.back();
  stacks.pop_back();
  void** top = reinterpret_cast<void**>(f.stack + STACK);
  *--top = nullptr;  // so that the stack is aligned as after a call
  *--top = reinterpret_cast<void*>(fiber_main);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  f.sp = top;
}

}  // namespace
}  // namespace deixis_host

#include "faults.h"

namespace deixis_host {
namespace {
// Threads by warps, warps in the order of their first thread.
std::vector<std::vector<unsigned>> thread_order(size_t n, const std::string& wish) {
  std::vector<unsigned> order(n);
  for (size_t i = 0; i < n; i++) order[i] = i;
  if (wish == "reverse") {
    std::reverse(order.begin(), order.end());
  } else if (wish != "forward") {
    std::mt19937 random(std::stoul(wish));
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

constexpr int ILLEGAL_ADDRESS = 700, MISALIGNED_ADDRESS = 716, LAUNCH_FAILED = 719;

// The block's threads are given up.
int give_up(int code, const std::string& why) {
  for (Fiber& f : fibers)
    if (f.state != State::DONE && f.sp) stacks.push_back(f.stack);
  return fail(code, why);
}

// Runs one block to its end: 0, or, with last_error set, why it could not.
int run_block(const std::vector<std::vector<unsigned>>& order) {
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
          in_kernel.store(true, std::memory_order_release);
          deixis_switch(&scheduler_sp, f.sp);
          in_kernel.store(false, std::memory_order_release);
          if (watched.zone) look(f.index);
          moved = again = true;
          if (f.state == State::DONE) {
            done++;
            stacks.push_back(f.stack);
          }
          if (fault.signal) {
            std::string why = trap.empty() ? where() + thread_text(f.index) + fault_text() : trap;
            fault.signal = 0;
            return give_up(trap.empty() ? ILLEGAL_ADDRESS : MISALIGNED_ADDRESS, why);
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
    return give_up(LAUNCH_FAILED, where() + text);
  }
  return 0;
}
}  // namespace

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
  trap = where() + thread_text(*thread_index) + ": moves " + std::to_string(bytes) +
         " bytes at once at an address that is no multiple of it";
}
}  // namespace deixis_host
