// A block of threads as fibers: each runs until it meets a barrier or a warp collective.
//
// Warps, and lanes of a warp, run in an order drawn from a seed, each as far as it can: what
// needs a barrier and has none goes wrong. Barriers are matched by their source line.
//
// A kernel switches fibers millions of times: a lane that waits goes on in the next lane that can
// run, and in `Block::run_warp` only when there is none.
#pragma once
#include "shim.hpp"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulated {
inline Context context;
inline const char *running_kernel = nullptr;
inline std::mt19937_64 chance{0};

// Ends the process: a kernel did what a card would not report, or not so clearly.
[[noreturn]] inline void refuse(const std::string &what) {
    char where[256];
    const Dim &b = context.block, &t = context.thread;
    snprintf(where, sizeof where, "emulated CUDA: kernel `%s`, block (%u, %u, %u), thread (%u, %u, %u): ",
             running_kernel ? running_kernel : "none", b.x, b.y, b.z, t.x, t.y, t.z);
    fprintf(stderr, "%s%s\n", where, what.c_str());
    _exit(86);
}

// Orders of the lanes of a warp: each is one of 256 shuffles, with some bits of all lanes flipped.
class Orders {
  public:
    Orders() {
        std::mt19937_64 random{1};
        for (auto &order : shuffles) {
            for (unsigned i = 0; i < 32; ++i) order[i] = i;
            std::shuffle(order, order + 32, random);
        }
    }
    void seed(uint64_t seed) { state = seed; }
    // Of lanes 0 to `count`.
    void draw(unsigned char *into, unsigned count) {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        uint64_t z = state += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        z ^= z >> 31;
        const unsigned char *from = shuffles[z % 256], flip = z >> 8 & 31;
        unsigned n = 0;
        for (unsigned i = 0; i < 32; ++i) {
            into[n] = from[i] ^ flip;
            n += into[n] < count;
        }
    }

  private:
    uint64_t state = 0;
    unsigned char shuffles[256][32];
};
inline Orders orders;

enum State : unsigned char { Ready, Barrier, Warp, Done };

constexpr size_t STACK = 64 << 10;
constexpr unsigned MOST_THREADS = 1024;

#if defined(__x86_64__)
// Saves what a call preserves and the stack pointer, and goes on from another stack.
typedef void *Place;
extern "C" void emulated_switch(void **save, void *load);
asm(R"(
.text
.globl emulated_switch
.hidden emulated_switch
.type emulated_switch, @function
emulated_switch:
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
.size emulated_switch, .-emulated_switch
)");
inline void change(Place &from, Place &to) { emulated_switch(&from, to); }
#else
typedef ucontext_t Place;
inline void change(Place &from, Place &to) { swapcontext(&from, &to); }
#endif

// What a warp does at once when all its lanes have met.
typedef void (*Together)(Slot *slots);

class Block {
  public:
    // Runs one block of `count` threads.
    void run(unsigned count, void (*call)(void **), void **parameters);
    // The running thread waits for the others at a line.
    void barrier(int at) {
        if (!waiting++) barrier_at = at;
        barriers_differ |= at != barrier_at;
        line[now] = at;
        leave(Barrier);
    }
    // The running lane brings a value; where all others have brought theirs.
    Slot *meet(int at, const void *value, unsigned size, Together together) {
        if (!met++) met_at = at;
        meetings_differ |= at != met_at;
        last = together;
        Slot *own = slots[side];
        memcpy(own[now - first].bytes, value, size);
        leave(Warp);
        return own;
    }
    // What follows is said of this lane of the running warp.
    void tell_lane(unsigned lane) { tell(first + lane); }

  private:
    char *stacks[MOST_THREADS] = {};
    Place place[MOST_THREADS], scheduler;
    State state[MOST_THREADS];
    int line[MOST_THREADS];
    Dim thread[MOST_THREADS];
    Dim size{};
    unsigned now = 0, count = 0;
    // The order of the running warp's lanes, and how many have had their turn.
    unsigned char order[33];
    unsigned first = 0, lanes = 0, turn = 0;
    // Threads that wait at a barrier, its line; lanes of the running warp that have met, their line.
    unsigned waiting = 0, met = 0;
    int barrier_at = 0, met_at = 0;
    bool barriers_differ = false, meetings_differ = false;
    Together last = nullptr;
    // What the running warp's lanes brought, now and the time before.
    Slot slots[2][32];
    unsigned side = 0;
    void (*call)(void **) = nullptr;
    void **parameters = nullptr;

    static void body();
    void start(unsigned index);
    void tell(unsigned index) { context.thread = thread[index], context.lane = index % 32; }
    // The next lane that can run, or none.
    bool next() {
        while (turn < lanes) {
            unsigned index = first + order[turn++];
            if (state[index] == Ready) return now = index, tell(index), true;
        }
        return false;
    }
    void leave(State why) {
        unsigned own = now;
        state[own] = why;
        bool more = next();
        change(place[own], more ? place[now] : scheduler);
    }
    void run_warp(unsigned warp);
};

inline Block block;

inline void Block::body() {
    block.call(block.parameters);
    block.leave(Done);
    abort();
}

inline void Block::start(unsigned index) {
    if (!stacks[index]) {
        // A page without access below each stack: an overflow is a fault, not another's memory.
        char *memory = (char *)mmap(nullptr, STACK + 4096, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        mprotect(memory, 4096, PROT_NONE);
        stacks[index] = memory + 4096;
    }
    state[index] = Ready;
#if defined(__x86_64__)
    void **top = (void **)(stacks[index] + STACK);
    *--top = nullptr;
    *--top = (void *)&Block::body;
    place[index] = top - 6;
#else
    getcontext(&place[index]);
    place[index].uc_stack.ss_sp = stacks[index];
    place[index].uc_stack.ss_size = STACK;
    makecontext(&place[index], &Block::body, 0);
#endif
}

// Runs a warp until all its lanes stand at a barrier or are done.
inline void Block::run_warp(unsigned warp) {
    first = warp * 32, lanes = std::min(32u, count - first);
    for (;;) {
        orders.draw(order, lanes);
        turn = met = 0, meetings_differ = false;
        if (next()) change(scheduler, place[now]);
        if (met == 0) return;
        if (met < lanes || meetings_differ)
            refuse("a warp collective at line " + std::to_string(met_at) + " was not reached by all lanes of warp " +
                   std::to_string(warp));
        memset(state + first, Ready, lanes);
        if (last) last(slots[side]);
        side ^= 1;
    }
}

inline void Block::run(unsigned threads, void (*function)(void **), void **values) {
    call = function, parameters = values;
    const Dim &shape = context.block_size;
    if (threads != count || memcmp(&shape, &size, sizeof size)) {
        count = threads, size = shape;
        for (unsigned i = 0; i < count; ++i) thread[i] = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    }
    for (unsigned i = 0; i < count; ++i) start(i);
    unsigned warps = (count + 31) / 32;
    unsigned char of_warps[33];
    for (;;) {
        orders.draw(of_warps, warps);
        waiting = 0, barriers_differ = false;
        for (unsigned i = 0; i < warps; ++i) run_warp(of_warps[i]);
        if (waiting == 0) return;
        if (waiting < count || barriers_differ) {
            unsigned stranger = 0;
            for (unsigned i = 1; i < count; ++i)
                if (state[i] != state[0] || line[i] != line[0]) stranger = i;
            std::string lines;
            for (unsigned i : {0u, stranger})
                lines += ", thread " + std::to_string(i) +
                         (state[i] == Done ? " returned" : " is at line " + std::to_string(line[i]));
            refuse("a barrier was reached by " + std::to_string(waiting) + " of " + std::to_string(count) +
                   " threads" + lines);
        }
        memset(state, Ready, count);
    }
}

inline void barrier(int line) { block.barrier(line); }

inline const Slot *meet(int line, unsigned mask, const void *value, unsigned size) {
    if (mask != ~0u) refuse("a warp collective at line " + std::to_string(line) + " is not for all lanes");
    if (size > sizeof(Slot)) refuse("a warp collective of more than 64 bytes a lane");
    return block.meet(line, value, size, nullptr);
}
} // namespace emulated
