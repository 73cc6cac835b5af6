// Streams, events, page-locked memory and graphs of the stand-in driver; a part of driver.cpp.
//
// A copy from or to page-locked memory is put off until something waits for it or is launched after
// it, so that memory used again too early, or read too soon, shows. While a stream is captured,
// nothing is done: work becomes nodes of a graph, and what a real driver refuses then (waiting,
// pageable copies, freeing) is refused and spoils the capture.
#pragma once

namespace deixis_host {
namespace {
constexpr int ILLEGAL_STATE = 401, NOT_FOUND = 500, NOT_READY = 600, NOT_SUPPORTED = 801,
              CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901;
constexpr int MODE_RELAXED = 2;

struct Work {
  std::string what;
  std::function<int()> run;
  std::vector<uint64_t> arguments;  // of a kernel, addresses among them
};
struct Graph {
  std::vector<Work> nodes;
  std::string stale;  // the node whose memory was freed
};
struct Stream {
  std::deque<Work> pending;
  unsigned long given = 0, done = 0;
  Graph* capture = nullptr;
  int mode = 0;
  std::string spoilt;  // why the capture is no good any more
};
struct Event {
  Stream* stream = nullptr;
  unsigned long at = 0;  // work of the stream before it
};

std::set<Stream*> streams;
std::set<Event*> events;
std::set<Graph*> graphs, executables;
std::map<uintptr_t, size_t> pinned;  // address to size

int step(Stream* s) {
  Work w = std::move(s->pending.front());
  s->pending.pop_front();
  s->done++;
  return w.run();
}

int drain(Stream* s) {
  while (!s->pending.empty())
    if (int code = step(s)) return code;
  return 0;
}

int drain_all() {
  for (Stream* s : streams)
    if (int code = drain(s)) return code;
  return 0;
}

Stream* capturing() {
  for (Stream* s : streams)
    if (s->capture) return s;
  return nullptr;
}

int spoil(Stream* s, const std::string& why) {
  s->spoilt = why;
  return fail(CAPTURE_UNSUPPORTED, why + " while a stream is captured");
}

// 0 when the call may go on although it is not a stream's own.
int outside_capture(const char* call) {
  Stream* s = capturing();
  return s ? spoil(s, call) : 0;
}

int give(void* stream, Work work, bool put_off) {
  auto* s = static_cast<Stream*>(stream);
  if (!streams.count(s)) return fail(INVALID_VALUE, work.what + ": no such stream");
  if (s->capture) {
    if (!s->spoilt.empty()) return fail(CAPTURE_INVALIDATED, "the capture was spoilt by " + s->spoilt);
    s->capture->nodes.push_back(std::move(work));
    return 0;
  }
  s->given++;
  s->pending.push_back(std::move(work));
  return put_off ? 0 : drain(s);
}

// Graphs that were made with this memory cannot be launched any more.
void forget(uint64_t address, size_t bytes) {
  for (Graph* e : executables)
    for (Work& node : e->nodes)
      for (uint64_t word : node.arguments)
        if (word >= address && word < address + bytes) e->stale = node.what;
}

bool page_locked(const void* p, size_t bytes) {
  auto address = reinterpret_cast<uintptr_t>(p);
  auto it = pinned.upper_bound(address);
  if (it == pinned.begin()) return false;
  --it;
  return address + bytes <= it->first + it->second;
}

// A copy between host and device; pageable memory is read or written before the call returns.
int host_copy(const char* what, void* stream, const void* host, size_t bytes, std::function<int()> copy) {
  bool locked = page_locked(host, bytes);
  auto* s = static_cast<Stream*>(stream);
  if (!locked && streams.count(s) && s->capture) return spoil(s, std::string(what) + " with pageable memory");
  return give(stream, {what, std::move(copy), {}}, locked);
}
}  // namespace

int submit(void* stream, const char* what, std::function<int()> work) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context(what)) return code;
  return give(stream, {what, std::move(work), {}}, false);
}
}  // namespace deixis_host

using namespace deixis_host;

extern "C" {
int cuStreamCreate(void** stream, unsigned) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuStreamCreate")) return code;
  auto* s = new Stream;
  streams.insert(s);
  return *stream = s, 0;
}
int cuStreamDestroy_v2(void* stream) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuStreamDestroy")) return code;
  auto* s = static_cast<Stream*>(stream);
  if (!streams.count(s)) return fail(INVALID_VALUE, "cuStreamDestroy: no such stream");
  if (s->capture) return spoil(s, "cuStreamDestroy");
  int code = drain(s);
  streams.erase(s);
  delete s;
  return code;
}
int cuStreamSynchronize(void* stream) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuStreamSynchronize")) return code;
  auto* s = static_cast<Stream*>(stream);
  if (!streams.count(s)) return fail(INVALID_VALUE, "cuStreamSynchronize: no such stream");
  return s->capture ? spoil(s, "cuStreamSynchronize") : drain(s);
}

int cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuMemHostAlloc")) return code;
  if (bytes == 0) return fail(INVALID_VALUE, "cuMemHostAlloc of 0 bytes");
  void* p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!p) return fail(OUT_OF_MEMORY, "out of page-locked memory");
  memset(p, POISON, bytes);
  pinned[reinterpret_cast<uintptr_t>(p)] = bytes;
  return *memory = p, 0;
}
int cuMemFreeHost(void* memory) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuMemFreeHost")) return code;
  if (!pinned.count(reinterpret_cast<uintptr_t>(memory)))
    return fail(INVALID_VALUE, "cuMemFreeHost of an address that cuMemHostAlloc did not give");
  if (int code = outside_capture("cuMemFreeHost")) return code;
  int code = drain_all();
  pinned.erase(reinterpret_cast<uintptr_t>(memory));
  free(memory);
  return code;
}

int cuEventCreate(void** event, unsigned) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuEventCreate")) return code;
  auto* e = new Event;
  events.insert(e);
  return *event = e, 0;
}
int cuEventDestroy_v2(void* event) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuEventDestroy")) return code;
  auto* e = static_cast<Event*>(event);
  if (!events.erase(e)) return fail(INVALID_VALUE, "cuEventDestroy: no such event");
  delete e;
  return 0;
}
int cuEventRecord(void* event, void* stream) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuEventRecord")) return code;
  auto* e = static_cast<Event*>(event);
  auto* s = static_cast<Stream*>(stream);
  if (!events.count(e) || !streams.count(s)) return fail(INVALID_VALUE, "cuEventRecord: no such event or stream");
  if (s->capture) return spoil(s, "cuEventRecord");
  e->stream = s;
  e->at = s->given;
  return 0;
}
// Not ready at the first question while work before it is pending; each question does a piece of it.
int cuEventQuery(void* event) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuEventQuery")) return code;
  auto* e = static_cast<Event*>(event);
  if (!events.count(e)) return fail(INVALID_VALUE, "cuEventQuery: no such event");
  if (!e->stream || e->stream->done >= e->at) return 0;
  int code = step(e->stream);
  return code ? code : NOT_READY;
}
int cuEventSynchronize(void* event) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuEventSynchronize")) return code;
  auto* e = static_cast<Event*>(event);
  if (!events.count(e)) return fail(INVALID_VALUE, "cuEventSynchronize: no such event");
  while (e->stream && e->stream->done < e->at)
    if (int code = step(e->stream)) return code;
  return 0;
}

int cuStreamBeginCapture_v2(void* stream, int mode) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuStreamBeginCapture")) return code;
  auto* s = static_cast<Stream*>(stream);
  if (!streams.count(s) || mode < 0 || mode > MODE_RELAXED) return fail(INVALID_VALUE, "cuStreamBeginCapture");
  if (s->capture) return fail(ILLEGAL_STATE, "cuStreamBeginCapture of a stream that is being captured");
  s->capture = new Graph;
  s->mode = mode;
  s->spoilt.clear();
  return 0;
}
int cuStreamEndCapture(void* stream, void** graph) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuStreamEndCapture")) return code;
  auto* s = static_cast<Stream*>(stream);
  if (!streams.count(s) || !s->capture) return fail(ILLEGAL_STATE, "cuStreamEndCapture of a stream that is not captured");
  Graph* made = s->capture;
  s->capture = nullptr;
  *graph = nullptr;
  if (!s->spoilt.empty()) {
    delete made;
    return fail(CAPTURE_INVALIDATED, "the capture was spoilt by " + s->spoilt);
  }
  graphs.insert(made);
  return *graph = made, 0;
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuGraphInstantiateWithFlags")) return code;
  if (!graphs.count(static_cast<Graph*>(graph)) || flags != 0) return fail(INVALID_VALUE, "cuGraphInstantiate: no such graph, or flags");
  auto* made = new Graph(*static_cast<Graph*>(graph));
  executables.insert(made);
  return *executable = made, 0;
}
int cuGraphDestroy(void* graph) {
  std::lock_guard<std::mutex> g(lock);
  auto* made = static_cast<Graph*>(graph);
  if (!graphs.erase(made)) return fail(INVALID_VALUE, "cuGraphDestroy: no such graph");
  delete made;
  return 0;
}
int cuGraphExecDestroy(void* executable) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuGraphExecDestroy")) return code;
  auto* e = static_cast<Graph*>(executable);
  if (!executables.erase(e)) return fail(INVALID_VALUE, "cuGraphExecDestroy: no such graph");
  delete e;
  return 0;
}
int cuGraphLaunch(void* executable, void* stream) {
  std::lock_guard<std::mutex> g(lock);
  if (int code = in_context("cuGraphLaunch")) return code;
  auto* e = static_cast<Graph*>(executable);
  auto* s = static_cast<Stream*>(stream);
  if (!executables.count(e)) return fail(INVALID_VALUE, "cuGraphLaunch: no such graph");
  if (!streams.count(s)) return fail(INVALID_VALUE, "cuGraphLaunch: no such stream");
  if (s->capture) return spoil(s, "cuGraphLaunch");
  if (!e->stale.empty()) return fail(ILLEGAL_ADDRESS, "graph node " + e->stale + " uses memory that was freed");
  if (int code = drain(s)) return code;
  for (Work& node : e->nodes)
    if (int code = node.run()) return fail(code, "graph node " + node.what + ": " + last_error);
  return 0;
}
}
