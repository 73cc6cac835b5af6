// How a stand-in of another library gives its work to a stream of the stand-in driver (link with
// libcuda.so.1).
#pragma once
#include <functional>

namespace deixis_host {
// Does the work after what was given before, or, while the stream is captured, keeps it as a node of
// the graph: it must hold copies of all that it reads on the host. 0, or the driver's error.
int submit(void* stream, const char* what, std::function<int()> work);
}  // namespace deixis_host
