// What lies beside buffers, and what is in them before they are written; a part of driver.cpp.
#pragma once

namespace deixis_host {
namespace {
constexpr size_t GUARD = 256;           // bytes of a zone
constexpr unsigned char POISON = 0xFF;  // NaN in every floating type

// The bytes of guard zones: NaN in fp32, fp16 and bf16 too, so that a result shows a read beside a buffer. They change
// from 256 bytes to the next, and are not the poison, so that copying either into a zone shows as well.
constexpr size_t GUARD_PERIOD = 64 << 10;
struct GuardBytes {
  unsigned char byte[GUARD_PERIOD + 4 * GUARD];
  GuardBytes() {
    for (size_t i = 0; i < sizeof byte; i++) byte[i] = i % 2 ? 0x7F : 0x81 + i % GUARD_PERIOD / 256 % 126;
  }
};
const GuardBytes guard_bytes;

// For at most four zones.
const unsigned char* guard_at(const unsigned char* p) {
  return guard_bytes.byte + reinterpret_cast<uintptr_t>(p) % GUARD_PERIOD;
}
void put_guard(unsigned char* p, size_t n) { memcpy(p, guard_at(p), n); }
bool intact(const unsigned char* p, size_t n) { return memcmp(p, guard_at(p), n) == 0; }

// A guard zone that is known to be written over: which thread of a block did so is found by running the block again
// and looking after each turn of a thread.
struct Watched {
  const unsigned char* zone = nullptr;
  std::string culprit;
} watched;

void look(const deixis_dim3& thread) {
  if (!watched.culprit.empty() || intact(watched.zone, GUARD)) return;
  watched.culprit = thread_text(thread);
}

std::map<uint64_t, size_t> allocations;  // address to size
uint64_t in_use;

// The zone beside a buffer that was written over, or null.
const unsigned char* damaged(const void* address, size_t size) {
  auto* p = static_cast<const unsigned char*>(address);
  return !intact(p - GUARD, GUARD) ? p - GUARD : !intact(p + size, GUARD) ? p + size : nullptr;
}
const unsigned char* damaged(uint64_t address, size_t size) {
  return damaged(reinterpret_cast<const void*>(address), size);
}

// Says so in last_error, and mends the zones.
void report(const std::string& who, uint64_t address, size_t size, const unsigned char* zone) {
  auto* p = reinterpret_cast<unsigned char*>(address);
  last_error = who + ": wrote " + (zone < p ? "before" : "beyond") + " a buffer of " + std::to_string(size) + " bytes";
  put_guard(p - GUARD, GUARD);
  put_guard(p + size, GUARD);
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
}  // namespace
}  // namespace deixis_host
