// A CUDA driver for tests, on a machine without a GPU: built as libcuda.so, it runs the kernels' own bodies.
//
// Only what `src/compute/cuda` calls. It is stricter than a device where it can be: a stream does nothing before
// somebody waits for it, so that a result that is read too early is wrong here, every time; memory lies against
// pages that may not be touched; a handle that is used after it was destroyed, a copy that leaves its memory, a
// block that is freed twice, one that is freed at once while a kernel is under way (a device does all of it first), a
// stream that is destroyed with work on it, a call on a thread that has no context, a copy from the device of words that nobody wrote
// and an argument list that does not fit end the run. What a captured graph leaves open is done in an order of chance,
// another one at every launch.
//
// A kernel that is sent to an address which is no memory of the device's breaks the context, as on a device: from when
// the kernel runs, not from when it is put onto its stream, every call fails with error 700 and no stream does anything
// more, until the context is destroyed.
//
// TRACKSIDE_DRIVER, words apart by commas: `integrated` (memory is mapped), `poolless` (no memory pools),
// `fail:CALL:N` (the Nth call of that name fails, and from then on every call until the context is reset),
// `refuse:CALL:N` (the Nth call of that name is refused, and nothing else), `hang:CALL:N` (it never returns),
// `slow:CALL:N` (it takes a second and a half), `leaks` (each context that is destroyed leaves some of its memory).

#define SHIM_WITHOUT_MAIN
#include "shim.cpp"

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>

#define CALL extern "C" __attribute__((visibility("default"))) int

namespace {

const int INVALID_VALUE = 1, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, UNCAPTURED = 900, UNJOINED = 904;
const size_t HANDLE_BYTES = 4096;  // of the device's memory that a stream, an event or a graph counts as
const size_t LEAK_BYTES = 1 << 20;
// What shim::Guarded fills memory with; no kernel gives that number but once in four thousand million words.
const u32 NEVER_WRITTEN = 0xa5a5a5a5u;

struct Node {
  std::function<void()> work;
  std::vector<size_t> after;
};
struct Graph {
  std::vector<Node> nodes;
};
struct Stream {
  std::deque<std::function<void()>> waiting;
  u64 put = 0, done = 0;      // pieces of work so far
  Graph *capture = nullptr;
  std::vector<size_t> last;   // what the next captured piece comes after
  u32 asked = 0;              // how often somebody has asked whether its work is done
  bool own = false;           // of the thread that owns the device, which frees its memory, too
  u32 kernels = 0;            // launches and graphs that wait
};
struct Event {
  double at = 0;
  Stream *stream = nullptr;   // what was put there before is to be done
  u64 put = 0;
  Graph *capture = nullptr;   // or, where it was captured, these pieces
  std::vector<size_t> last;
};

// Never destroyed: a thread of the program may call while the process ends.
std::map<u64, shim::Guarded *> &device_memory = *new std::map<u64, shim::Guarded *>;
std::map<u64, shim::Guarded *> &pinned_memory = *new std::map<u64, shim::Guarded *>;
std::set<void *> &streams = *new std::set<void *>, &events = *new std::set<void *>, &graphs = *new std::set<void *>;
std::set<void *> &loaded = *new std::set<void *>;  // kernels that were launched
std::map<std::string, u32> &calls = *new std::map<std::string, u32>;
bool broken = false;
size_t leaked = 0;
thread_local void *current = nullptr;
thread_local std::vector<void *> &beneath = *new std::vector<void *>;
std::recursive_mutex &door = *new std::recursive_mutex;
shim::Random chance = {42};
double clock_s = 0;

bool option(const char *word) {
  const char *set = getenv("TRACKSIDE_DRIVER");
  return set && std::string(",") .append(set).append(",").find(std::string(",") + word + ",") != std::string::npos;
}

[[noreturn]] void misuse(const char *what) {
  fprintf(stderr, "driver: %s\n", what);
  _exit(4);
}

// What a call by that name answers: an error where one was asked for, or while the context is broken.
int answer(const char *name) {
  if (!current && strcmp(name, "cuDevicePrimaryCtxRetain") != 0) misuse((std::string(name) + " on a thread without a context").c_str());
  std::string at = ":" + std::string(name) + ":";
  {
    std::lock_guard<std::recursive_mutex> through(door);
    at += std::to_string(++calls[name]);
  }
  if (option(("fail" + at).c_str())) broken = true;
  if (option(("slow" + at).c_str())) usleep(1500 * 1000);
  while (option(("hang" + at).c_str())) sleep(1);
  if (broken) return ILLEGAL_ADDRESS;
  return option(("refuse" + at).c_str()) ? INVALID_VALUE : 0;
}
// Threads come one after another.
#define ANSWER()                                \
  if (const int e = answer(__func__)) return e; \
  std::lock_guard<std::recursive_mutex> through(door)

Stream &stream_of(void *handle) {
  if (!streams.count(handle)) misuse("a stream that is none");
  return *(Stream *)handle;
}

void enqueue(void *handle, std::function<void()> work) {
  Stream &s = stream_of(handle);
  if (!s.capture) {
    s.waiting.push_back(std::move(work));
    s.put++;
    return;
  }
  s.capture->nodes.push_back({std::move(work), s.last});
  s.last = {s.capture->nodes.size() - 1};
}

// The same for a launch or a graph.
void enqueue_kernel(void *handle, std::function<void()> work) {
  Stream &s = stream_of(handle);
  enqueue(handle, std::move(work));
  if (s.capture) return;
  s.kernels++;
  enqueue(handle, [&s] { s.kernels--; });
}

// Does what a stream was given first, so many pieces of all that it ever had; in a context that is broken, nothing.
void drain(Stream &s, u64 put) {
  while (s.done < put) {
    auto work = std::move(s.waiting.front());
    s.waiting.pop_front();
    s.done++;
    if (!broken) work();
  }
}

// Does a graph's work in one of the orders that it allows.
void play(const std::vector<Node> &nodes) {
  std::vector<bool> done(nodes.size());
  for (size_t left = nodes.size(); left > 0; left--) {
    std::vector<size_t> ready;
    for (size_t n = 0; n < nodes.size(); n++) {
      bool free = !done[n];
      for (size_t before : nodes[n].after) free &= (bool)done[before];
      if (free) ready.push_back(n);
    }
    const size_t next = ready[chance.next() % ready.size()];
    if (!broken) nodes[next].work();
    done[next] = true;
  }
}

// Whether all of a graph comes before what is captured last.
bool joined(const Graph &graph, std::vector<size_t> last) {
  std::set<size_t> before;
  while (!last.empty()) {
    const size_t n = last.back();
    last.pop_back();
    if (before.insert(n).second) last.insert(last.end(), graph.nodes[n].after.begin(), graph.nodes[n].after.end());
  }
  return before.size() == graph.nodes.size();
}

// The block that holds all of these bytes.
void inside(std::map<u64, shim::Guarded *> &blocks, u64 at, size_t bytes, const char *what) {
  auto after = blocks.upper_bound(at);
  if (after == blocks.begin()) misuse(what);
  auto &[start, block] = *--after;
  if (at + bytes > start + block->bytes) misuse(what);
}

// Whether an address is the device's: its own memory, or the host's where that is mapped. An array without elements
// may begin where a block ends.
bool mapped(u64 at) {
  for (auto *blocks : {&device_memory, &pinned_memory}) {
    if (blocks == &pinned_memory && !option("integrated")) continue;
    auto after = blocks->upper_bound(at);
    if (after == blocks->begin()) continue;
    auto &[start, block] = *--after;
    if (at <= start + block->bytes) return true;
  }
  return false;
}

// Ends the run if a word is as memory is before anybody writes to it.
void written(u64 at, size_t bytes) {
  const u32 *word = (const u32 *)(uintptr_t)at;
  for (size_t i = 0; i < bytes / 4; i++)
    if (word[i] == NEVER_WRITTEN) misuse("a copy from the device holds words that were never written");
}

int allocate(std::map<u64, shim::Guarded *> &blocks, u64 *at, size_t bytes) {
  if (bytes == 0) return INVALID_VALUE;
  auto *block = new shim::Guarded((bytes + 255) / 256 * 256, true);
  *at = (u64)(uintptr_t)block->data;
  blocks[*at] = block;
  return 0;
}

// Freeing at once does not end before all that was put onto streams has.
void idle() {
  for (void *s : streams)
    if (((Stream *)s)->own && ((Stream *)s)->kernels) misuse("memory is freed while a kernel is under way, for which that waits");
}

void release(std::map<u64, shim::Guarded *> &blocks, u64 at) {
  auto found = blocks.find(at);
  if (found == blocks.end()) misuse("memory is freed that was not allocated");
  if (!found->second->intact()) misuse("something was written beside a block of memory");
  delete found->second;
  blocks.erase(found);
}

}  // namespace

CALL cuInit(unsigned) { return 0; }
CALL cuDriverGetVersion(int *v) { return *v = 12060, 0; }
CALL cuDeviceGetCount(int *n) { return *n = 1, 0; }
CALL cuDeviceGet(int *device, int) { return *device = 0, 0; }
CALL cuDeviceGetName(char *name, int length, int) { return snprintf(name, (size_t)length, "host"), 0; }
CALL cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = (size_t)1 << 32, 0; }
CALL cuDeviceGetAttribute(int *v, int attribute, int) {
  switch (attribute) {
    case 75: *v = 8; break;      // compute capability
    case 76: *v = 7; break;
    case 16: *v = 2; break;      // multiprocessors
    case 39: *v = 512; break;    // threads of one
    case 18: *v = option("integrated"); break;
    case 115: *v = !option("poolless"); break;
    case 37: *v = 256; break;    // bus, bits
    case 36: *v = 3200000; break;  // memory clock, kHz
    case 13: *v = 1300000; break;  // clock, kHz
    default: return INVALID_VALUE;
  }
  return 0;
}
CALL cuDevicePrimaryCtxRetain(void **context, int) {
  ANSWER();
  return *context = &broken, 0;
}
CALL cuDevicePrimaryCtxRelease_v2(int) { return 0; }
CALL cuDevicePrimaryCtxReset_v2(int) {
  // Everything of the context goes, pinned memory too.
  for (auto *blocks : {&device_memory, &pinned_memory}) {
    for (auto &[at, block] : *blocks) delete block;
    blocks->clear();
  }
  streams.clear(), events.clear(), graphs.clear(), loaded.clear();
  if (option("leaks")) leaked += LEAK_BYTES;
  broken = false;
  return 0;
}
CALL cuCtxSetCurrent(void *context) { return current = context, 0; }
CALL cuCtxGetCurrent(void **context) { return *context = current, 0; }
CALL cuCtxPushCurrent_v2(void *context) {
  beneath.push_back(current);
  return current = context, 0;
}
CALL cuCtxPopCurrent_v2(void **context) {
  if (beneath.empty()) misuse("more contexts are popped than were pushed");
  if (context) *context = current;
  current = beneath.back();
  return beneath.pop_back(), 0;
}
CALL cuDeviceGetDefaultMemPool(void **pool, int) { return *pool = &broken, 0; }
CALL cuMemPoolSetAttribute(void *, int, void *) { return 0; }
CALL cuModuleLoadData(void **module, const void *image) {
  ANSWER();
  // A cubin is an ELF file; anything else is PTX, a text with its version.
  const char *text = (const char *)image;
  if (memcmp(text, "\177ELF", 4) != 0 && !strstr(text, ".version 8.5")) return INVALID_VALUE;
  return *module = &broken, 0;
}
CALL cuModuleUnload(void *) { return 0; }
CALL cuModuleGetFunction(void **function, void *, const char *name) {
  ANSWER();
  for (auto &e : shim::entries)
    if (!strcmp(name, e.name)) return *function = &e, 0;
  return NOT_FOUND;
}
CALL cuCtxGetStreamPriorityRange(int *lowest, int *highest) { return *lowest = 0, *highest = -5, 0; }
CALL cuStreamCreateWithPriority(void **stream, unsigned, int) {
  ANSWER();
  auto *s = new Stream;
  s->own = true;
  streams.insert(*stream = s);
  return 0;
}
CALL cuStreamCreate(void **stream, unsigned) {
  ANSWER();
  streams.insert(*stream = new Stream);
  return 0;
}
CALL cuStreamDestroy_v2(void *stream) {
  std::lock_guard<std::recursive_mutex> through(door);
  if (streams.count(stream) && !broken && !stream_of(stream).waiting.empty()) misuse("a stream is destroyed with work on it");
  return streams.erase(stream) ? 0 : INVALID_VALUE;
}
CALL cuStreamSynchronize(void *handle) {
  ANSWER();
  Stream &s = stream_of(handle);
  if (s.capture) misuse("a wait for a stream that captures");
  drain(s, s.put);
  return broken ? ILLEGAL_ADDRESS : 0;
}
CALL cuStreamQuery(void *handle) {
  ANSWER();
  // The work is under way until it was asked for three times.
  Stream &s = stream_of(handle);
  if (!s.waiting.empty() && ++s.asked % 3 != 0) return NOT_READY;
  drain(s, s.put);
  return broken ? ILLEGAL_ADDRESS : 0;
}
CALL cuStreamWaitEvent(void *handle, void *event, unsigned) {
  ANSWER();
  if (!events.count(event)) misuse("an event that is none");
  Stream &s = stream_of(handle);
  Event &e = *(Event *)event;
  if (e.capture) {
    if (s.capture && s.capture != e.capture) misuse("two captures are mixed");
    if (!s.capture) s.last.clear();
    s.capture = e.capture;
    s.last.insert(s.last.end(), e.last.begin(), e.last.end());
    return 0;
  }
  if (s.capture) misuse("a stream that captures waits for what is not captured");
  if (Stream *const other = e.stream) enqueue(handle, [other, put = e.put] { drain(*other, put); });
  return 0;
}
CALL cuEventCreate(void **event, unsigned) {
  ANSWER();
  events.insert(*event = new Event);
  return 0;
}
CALL cuEventDestroy_v2(void *event) { return events.erase(event) ? 0 : INVALID_VALUE; }
CALL cuEventRecord(void *event, void *stream) {
  ANSWER();
  if (!events.count(event)) misuse("an event that is none");
  Stream &s = stream_of(stream);
  Event &e = *(Event *)event;
  if (s.capture) {
    e.capture = s.capture, e.last = s.last, e.stream = nullptr;
    return 0;
  }
  enqueue(stream, [=] { ((Event *)event)->at = clock_s; });
  e.capture = nullptr, e.stream = &s, e.put = s.put;
  return 0;
}
CALL cuEventElapsedTime(float *ms, void *begin, void *end) {
  ANSWER();
  return *ms = (float)((((Event *)end)->at - ((Event *)begin)->at) * 1e3), 0;
}
CALL cuMemHostAlloc(void **at, size_t bytes, unsigned) {
  ANSWER();
  return allocate(pinned_memory, (u64 *)at, bytes);
}
CALL cuMemFreeHost(void *at) {
  ANSWER();
  idle();
  release(pinned_memory, (u64)(uintptr_t)at);
  return 0;
}
CALL cuMemHostGetDevicePointer_v2(u64 *device, void *host, unsigned) { return *device = (u64)(uintptr_t)host, 0; }
CALL cuMemAlloc_v2(u64 *at, size_t bytes) {
  ANSWER();
  return allocate(device_memory, at, bytes);
}
CALL cuMemAllocAsync(u64 *at, size_t bytes, void *stream) {
  ANSWER();
  if (stream_of(stream).capture) misuse("an allocation is captured");
  return allocate(device_memory, at, bytes);
}
CALL cuMemFree_v2(u64 at) {
  ANSWER();
  idle();
  release(device_memory, at);
  return 0;
}
CALL cuMemFreeAsync(u64 at, void *stream) {
  ANSWER();
  enqueue(stream, [=] { release(device_memory, at); });
  return 0;
}
CALL cuMemGetInfo_v2(size_t *free, size_t *total) {
  ANSWER();
  size_t used = leaked;
  for (auto *blocks : {&device_memory, &pinned_memory})
    for (auto &[at, block] : *blocks) used += block->bytes;
  used += (streams.size() + events.size() + graphs.size()) * HANDLE_BYTES;
  *total = (size_t)1 << 32;
  *free = *total - used;
  return 0;
}
CALL cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t bytes, void *stream) {
  ANSWER();
  enqueue(stream, [=] {
    inside(device_memory, to, bytes, "a copy to the device leaves its memory");
    inside(pinned_memory, (u64)(uintptr_t)from, bytes, "a copy from memory that is not pinned");
    memcpy((void *)(uintptr_t)to, from, bytes);
  });
  return 0;
}
CALL cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t bytes, void *stream) {
  ANSWER();
  enqueue(stream, [=] {
    inside(device_memory, from, bytes, "a copy from the device leaves its memory");
    inside(pinned_memory, (u64)(uintptr_t)to, bytes, "a copy to memory that is not pinned");
    written(from, bytes);
    memcpy(to, (void *)(uintptr_t)from, bytes);
  });
  return 0;
}
CALL cuMemsetD8Async(u64 at, unsigned char value, size_t bytes, void *stream) {
  ANSWER();
  enqueue(stream, [=] {
    inside(device_memory, at, bytes, "a fill leaves its memory");
    memset((void *)(uintptr_t)at, value, bytes);
  });
  return 0;
}
CALL cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void *stream) {
  ANSWER();
  enqueue(stream, [=] {
    inside(device_memory, from, bytes, "a copy leaves its memory");
    inside(device_memory, to, bytes, "a copy leaves its memory");
    memcpy((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes);
    clock_s += 1e-3;
  });
  return 0;
}
CALL cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                    unsigned shared, void *stream, void **params, void **) {
  ANSWER();
  auto *entry = (shim::Entry *)function;
  if (gy != 1 || gz != 1 || by != 1 || bz != 1 || gx == 0 || bx == 0 || bx > shim::MAX_THREADS || shared > 48 * 1024)
    return INVALID_VALUE;
  // A driver may load a kernel at its first launch, and cannot while it captures.
  if (stream_of(stream).capture && !loaded.count(function)) return UNCAPTURED;
  loaded.insert(function);
  // Copied now, as a driver does; eight bytes each, as the caller lays them out.
  std::vector<u64> values;
  for (u32 i = 0; i < entry->arguments; i++) values.push_back(*(u64 *)params[i]);
  enqueue_kernel(stream, [=]() mutable {
    for (u32 i = 0; i < entry->arguments; i++)
      if ((entry->addresses >> i & 1) && !mapped(values[i])) broken = true;
    if (broken) return;
    shim::chosen = entry;
    shim::arguments.clear();
    for (auto &v : values) shim::arguments.push_back(&v);
    shim::launch(gx, bx, shared, (u32)(chance.next() % 3), chance);
    clock_s += 1e-3;
  });
  return 0;
}
CALL cuLaunchHostFunc(void *stream, void (*work)(void *), void *with) {
  ANSWER();
  enqueue(stream, [=] { work(with); });
  return 0;
}
CALL cuStreamBeginCapture_v2(void *stream, int) {
  ANSWER();
  Stream &s = stream_of(stream);
  if (s.capture) misuse("a stream that captures already");
  auto *graph = new Graph;
  graphs.insert(graph);
  s.capture = graph;
  s.last.clear();
  return 0;
}
CALL cuStreamEndCapture(void *stream, void **graph) {
  Stream &s = stream_of(stream);
  Graph *const own = s.capture;
  if (!own) misuse("a stream that captures nothing");
  const bool whole = joined(*own, s.last);
  for (void *other : streams)
    if (((Stream *)other)->capture == own) ((Stream *)other)->capture = nullptr;
  *graph = nullptr;
  const int e = answer(__func__);
  if (e || !whole) {
    graphs.erase(own);
    return e ? e : UNJOINED;
  }
  *graph = own;
  return 0;
}
CALL cuGraphInstantiateWithFlags(void **exec, void *graph, u64) {
  ANSWER();
  graphs.insert(*exec = new Graph(*(Graph *)graph));
  return 0;
}
CALL cuGraphLaunch(void *exec, void *stream) {
  ANSWER();
  if (!graphs.count(exec)) misuse("a graph that is none");
  enqueue_kernel(stream, [nodes = ((Graph *)exec)->nodes] { play(nodes); });
  return 0;
}
CALL cuGraphDestroy(void *graph) { return graphs.erase(graph) ? 0 : INVALID_VALUE; }
CALL cuGraphExecDestroy(void *exec) { return graphs.erase(exec) ? 0 : INVALID_VALUE; }
CALL cuGetErrorName(int e, const char **text) {
  return *text = e == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_INVALID_VALUE", 0;
}
CALL cuGetErrorString(int, const char **text) { return *text = "of the tests' driver", 0; }
