// Runs one launch of a kernel on the host: a program for tests, fed on stdin, answering on stdout.
//
// Every thread of a block is a fiber that runs until it meets a barrier or a shuffle; blocks run one after
// the other. The order in which fibers run is chosen by `schedule` (first come, last come, or at random from
// a seed): a kernel that lacks a barrier gives different answers under different orders. Shared memory is
// filled with garbage before each block. Arrays lie against a page that may not be touched, at their end or
// at their beginning; arrays that a kernel only reads may not be written. So an index out of bounds, a
// value read before it was written and a race show here too, not only on a device under compute-sanitizer.
//
// Request, little-endian: "TSHM", u32 length of the kernel's name, the name, u32 grid, u32 block, u32 bytes of
// shared memory, u32 schedule (0, 1, 2), u64 seed, u32 count of arguments; an argument is u32 kind, u64 length
// and, but for kind 1, that many bytes. Kinds: 0 array in, 1 array out, 2 array in and out, 3 scalar.
// Answer: the bytes of the arrays of kinds 1 and 2, in order.

#include "block.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "kernels.h"

Index threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

const u32 MAX_THREADS = 1024;
const size_t STACK_BYTES = 128 * 1024;
const size_t GUARD = 4096;

struct Fiber {
  ucontext_t first;
  jmp_buf at;
  bool begun = false;
  Wait wait = ENDED;
  u32 turn = 0;  // which of the two tables its next exchange uses
};

Fiber fibers[MAX_THREADS];
jmp_buf scheduler;
ucontext_t main_context;
u32 current;
u64 table[2][MAX_THREADS];
unsigned char *shared_bytes;
void (*body)();

[[noreturn]] void fail(const char *why) {
  fprintf(stderr, "shim: block %u, thread %u: %s\n", blockIdx.x, threadIdx.x, why);
  _exit(3);
}

unsigned char *shared() { return shared_bytes; }

void give_way(Wait what) {
  Fiber &own = fibers[current];
  own.wait = what;
  if (_setjmp(own.at) == 0) _longjmp(scheduler, 1);
}

u64 exchange(Wait what, u64 value, u32 lane) {
  const u32 me = current;
  const u32 turn = fibers[me].turn;
  table[turn][me] = value;
  fibers[me].turn = turn ^ 1;
  give_way(what);
  return table[turn][(me & ~31u) + lane];
}

u32 ballot(bool predicate) {
  const u32 me = current;
  const u32 turn = fibers[me].turn;
  table[turn][me] = predicate;
  fibers[me].turn = turn ^ 1;
  give_way(AT_BALLOT);
  u32 all = 0;
  for (u32 lane = 0; lane < 32; lane++) all |= (u32)table[turn][(me & ~31u) + lane] << lane;
  return all;
}

void run_fiber() {
  for (;;) {
    body();
    give_way(ENDED);
  }
}

void prepare(u32 threads) {
  for (u32 t = 0; t < threads; t++) {
    Fiber &f = fibers[t];
    if (f.begun || f.first.uc_stack.ss_sp) continue;
    getcontext(&f.first);
    f.first.uc_stack.ss_sp = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    f.first.uc_stack.ss_size = STACK_BYTES;
    f.first.uc_link = nullptr;
    makecontext(&f.first, run_fiber, 0);
  }
}

// Runs a fiber until it gives way.
__attribute__((noinline)) void run(u32 thread) {
  current = thread;
  threadIdx = {thread, 0, 0};
  Fiber &f = fibers[thread];
  f.wait = RUNS;
  if (_setjmp(scheduler) == 0) {
    if (f.begun) _longjmp(f.at, 1);
    f.begun = true;
    swapcontext(&main_context, &f.first);
  }
}

struct Random {
  u64 state;
  u64 next() {  // splitmix64
    u64 z = (state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
};

void run_block(u32 threads, u32 schedule, Random &random) {
  std::vector<u32> ready;
  size_t head = 0;  // for first come, first served
  for (u32 t = 0; t < threads; t++) ready.push_back(schedule == 1 ? threads - 1 - t : t);
  std::vector<u32> warp_waits((threads + 31) / 32, 0);
  u32 block_waits = 0, ended = 0;
  const auto wake = [&](u32 from, u32 to) {
    for (u32 t = from; t < to; t++) ready.push_back(t);
  };
  while (head < ready.size()) {
    u32 thread;
    if (schedule == 0) {
      thread = ready[head++];
      if (head == ready.size()) ready.clear(), head = 0;
    } else {
      const size_t pick = schedule == 1 ? ready.size() - 1 : random.next() % ready.size();
      thread = ready[pick];
      ready[pick] = ready.back();
      ready.pop_back();
    }
    run(thread);
    const u32 warp = thread / 32, low = warp * 32;
    const u32 high = low + 32 < threads ? low + 32 : threads;
    switch (fibers[thread].wait) {
      case RUNS:
        fail("a fiber gave way without a reason");
      case ENDED:
        ended++;
        break;
      case AT_BLOCK:
        if (++block_waits == threads) {
          block_waits = 0;
          wake(0, threads);
        }
        break;
      default:
        if (++warp_waits[warp] == high - low) {
          for (u32 t = low; t < high; t++)
            if (fibers[t].wait != fibers[low].wait) fail("threads of a warp wait for different things");
          warp_waits[warp] = 0;
          wake(low, high);
        }
    }
  }
  if (ended != threads) {
    for (u32 t = 0; t < threads; t++)
      if (fibers[t].wait != ENDED) {
        threadIdx = {t, 0, 0};
        fail("it waits for threads that do not come");
      }
  }
}

// Memory against a page that may not be touched.
struct Guarded {
  unsigned char *data;
  unsigned char *map;
  size_t bytes, mapped, room;

  Guarded(size_t bytes, bool at_end) : bytes(bytes) {
    room = (bytes + GUARD - 1) / GUARD * GUARD;
    mapped = room + 2 * GUARD;
    map = (unsigned char *)mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) fail("out of memory");
    memset(map, 0xa5, mapped);
    // Devices align arrays to more than 16 bytes, which vector loads rely on.
    data = at_end ? map + GUARD + (room - bytes) / 16 * 16 : map + GUARD;
    mprotect(map, GUARD, PROT_NONE);
    mprotect(map + GUARD + room, GUARD, PROT_NONE);
  }
  ~Guarded() { munmap(map, mapped); }
  Guarded(const Guarded &) = delete;
  void seal() { mprotect(map + GUARD, room, PROT_READ); }
  // Whether the slack around the data is as it was.
  bool intact() const {
    for (unsigned char *p = map + GUARD; p < map + GUARD + room; p++)
      if ((p < data || p >= data + bytes) && *p != 0xa5) return false;
    return true;
  }
};

void read_all(void *to, size_t bytes) {
  if (fread(to, 1, bytes, stdin) != bytes) {
    fprintf(stderr, "shim: the request ends early\n");
    _exit(2);
  }
}
template <class T>
T read_one() {
  T v;
  read_all(&v, sizeof v);
  return v;
}

std::vector<void *> arguments;

template <class... A, size_t... I>
void unpack(void (*kernel)(A...), std::index_sequence<I...>) {
  kernel(*(A *)arguments[I]...);
}
template <class... A>
bool call(void (*kernel)(A...), bool really) {
  if (arguments.size() != sizeof...(A)) return false;
  if (really) unpack(kernel, std::index_sequence_for<A...>());
  return true;
}

template <class... A>
constexpr u32 arity(void (*)(A...)) {
  return sizeof...(A);
}
// Which arguments are addresses: a bit each.
template <class... A>
constexpr u32 addresses(void (*)(A...)) {
  u32 bits = 0, bit = 1;
  ((bits |= std::is_pointer_v<A> ? bit : 0, bit <<= 1), ...);
  return bits;
}

#define ENTRY(name) \
  {#name, arity(name), addresses(name), [](bool really) { return call(name, really); }},
struct Entry {
  const char *name;
  u32 arguments, addresses;
  bool (*call)(bool);
} entries[] = {KERNELS(ENTRY)};
Entry *chosen;

// Runs the chosen kernel on `arguments`.
void launch(u32 grid, u32 block, u32 shared_size, u32 schedule, Random &random) {
  body = [] { chosen->call(true); };
  prepare(block);
  blockDim = {block, 1, 1};
  gridDim = {grid, 1, 1};
  Guarded memory(shared_size, true);
  shared_bytes = memory.data;
  for (u32 b = 0; b < grid; b++) {
    blockIdx = {b, 0, 0};
    memset(memory.data, (int)(random.next() & 0xff), shared_size);
    run_block(block, schedule, random);
  }
}

#ifndef SHIM_WITHOUT_MAIN

int main_program() {
  char magic[4];
  read_all(magic, 4);
  if (memcmp(magic, "TSHM", 4) != 0) return fprintf(stderr, "shim: not a request\n"), 2;
  std::string name(read_one<u32>(), ' ');
  read_all(name.data(), name.size());
  const u32 grid = read_one<u32>(), block = read_one<u32>(), shared_size = read_one<u32>();
  const u32 schedule = read_one<u32>();
  Random random = {read_one<u64>()};
  const u32 count = read_one<u32>();
  struct Argument {
    u32 kind;
    u64 bytes;
    Guarded *memory;
    u64 value;
  };
  std::vector<Argument> list(count);
  for (auto &a : list) {
    a.kind = read_one<u32>();
    a.bytes = read_one<u64>();
    a.value = 0;
    if (a.kind == 3) {
      if (a.bytes > 8) return fprintf(stderr, "shim: a scalar of more than 8 bytes\n"), 2;
      read_all(&a.value, a.bytes);
    } else {
      a.memory = new Guarded(a.bytes, random.next() & 1);
      if (a.kind != 1) read_all(a.memory->data, a.bytes);
      if (a.kind == 0) a.memory->seal();
      a.value = (u64)(uintptr_t)a.memory->data;
    }
  }
  for (auto &a : list) arguments.push_back(&a.value);
  for (auto &e : entries)
    if (name == e.name) chosen = &e;
  if (!chosen) return fprintf(stderr, "shim: no kernel is called %s\n", name.c_str()), 2;
  if (!chosen->call(false)) return fprintf(stderr, "shim: %s does not take %u arguments\n", name.c_str(), count), 2;
  if (block == 0 || block > MAX_THREADS || block % 32) return fprintf(stderr, "shim: a block of %u\n", block), 2;

  launch(grid, block, shared_size, schedule, random);
  for (auto &a : list)
    if (a.kind == 1 || a.kind == 2) {
      if (!a.memory->intact()) return fprintf(stderr, "shim: %s wrote beside an array\n", name.c_str()), 3;
      if (fwrite(a.memory->data, 1, a.bytes, stdout) != a.bytes) return 2;
    }
  return fflush(stdout) == 0 ? 0 : 2;
}

#endif

}  // namespace shim

#ifndef SHIM_WITHOUT_MAIN
int main() { return shim::main_program(); }
#endif
