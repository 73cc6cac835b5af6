// A kernel that reads or writes where no memory is, or divides by zero: the launch fails, as a device's would, and the
// process goes on; a part of fibers.h.
//
// The JVM lives by the same signals (null checks, stack banging, safepoints). What does not happen in a kernel of ours, on
// the thread that runs it, is therefore given to the handler that was there before, under the mask that it asked for.
#pragma once
#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

#include <atomic>

namespace deixis_host {
namespace {
struct Fault {
  int signal = 0;  // 0 for none
  uintptr_t address;
  bool write, known;
} fault;

std::atomic<bool> in_kernel;
pthread_t kernel_thread;  // while in_kernel

constexpr int FAULTS[] = {SIGSEGV, SIGBUS, SIGFPE};
struct sigaction before_ours[64];

// Where the fiber goes on that has done so: as if its thread had ended.
void leave() {
  running->state = State::DONE;
  deixis_switch(&running->sp, scheduler_sp);
  abort();
}

void pass_on(int signal, siginfo_t* info, void* context) {
  const struct sigaction& old = before_ours[signal];
  if (old.sa_flags & SA_SIGINFO) {
    old.sa_sigaction(signal, info, context);
  } else if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN) {
    sigaction(signal, &old, nullptr);  // what faulted does so again, and meets what was there
  } else {
    old.sa_handler(signal);
  }
}

// Calls nothing that a signal handler may not. The fiber is not left from here: its registers are set so that it goes on
// in leave() when the kernel has put mask and signal stack back.
void on_fault(int signal, siginfo_t* info, void* context) {
  bool ours = in_kernel && pthread_equal(kernel_thread, pthread_self()) && info->si_code > 0;
  if (!ours) return pass_on(signal, info, context);
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  constexpr greg_t PAGE_FAULT = 14, WRITE = 2, DIRECTION = 0x400;
  fault.signal = signal;
  fault.address = reinterpret_cast<uintptr_t>(info->si_addr);
  fault.known = registers[REG_TRAPNO] == PAGE_FAULT;
  fault.write = registers[REG_ERR] & WRITE;
  auto top = reinterpret_cast<uintptr_t>(running->stack + STACK) & ~uintptr_t{15};
  registers[REG_RSP] = static_cast<greg_t>(top - 8);  // aligned as after a call
  registers[REG_RIP] = reinterpret_cast<greg_t>(leave);
  registers[REG_EFL] &= ~DIRECTION;
}

std::string fault_text() {
  if (fault.signal == SIGFPE) return ": divides an integer by zero";
  if (!fault.known) return ": reads or writes at an address that no machine has";
  char text[80];
  snprintf(text, sizeof text, ": %s at address 0x%zx, where no memory is", fault.write ? "writes" : "reads",
           static_cast<size_t>(fault.address));
  return text;
}

// Puts the handlers in place, and gives this thread a stack for them, as a fiber's may be what has run out.
class FaultsCaught {
  static constexpr size_t SIZE = 256 << 10;
  stack_t before;

 public:
  FaultsCaught() {
    static char* const stack = [] {
      for (int signal : FAULTS) {
        sigaction(signal, nullptr, &before_ours[signal]);
        struct sigaction own = before_ours[signal];
        own.sa_sigaction = on_fault;
        own.sa_flags |= SA_SIGINFO | SA_ONSTACK;
        sigaction(signal, &own, nullptr);
      }
      return new char[SIZE];
    }();
    stack_t own = {};
    own.ss_sp = stack;
    own.ss_size = SIZE;
    sigaltstack(&own, &before);
    kernel_thread = pthread_self();
  }
  ~FaultsCaught() { sigaltstack(&before, nullptr); }
};
}  // namespace
}  // namespace deixis_host
