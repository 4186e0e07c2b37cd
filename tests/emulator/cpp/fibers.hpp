// A block of threads as fibers: each runs until it meets a barrier or a warp collective.
//
// Warps, and lanes of a warp, run in an order drawn from a seed, each as far as it can: what
// needs a barrier and has none goes wrong. Barriers are matched by their source line.
#pragma once
#include "shim.hpp"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <algorithm>
#include <cstdio>
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

enum class State { Ready, Barrier, Warp, Done };

struct Fiber {
    char *stack = nullptr;
    State state = State::Done;
    int line = 0;
#if defined(__x86_64__)
    void *pointer = nullptr;
#else
    ucontext_t place;
#endif
};

constexpr size_t STACK = 64 << 10;

#if defined(__x86_64__)
// Saves what a call preserves and the stack pointer, and goes on from another stack.
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
#endif

class Block {
  public:
    // Runs one block of `count` threads.
    void run(unsigned count, void (*call)(void **), void **parameters);
    void yield() { leave(); }
    Fiber &current() { return fibers[now]; }
    Slot slots[32][2][32];
    unsigned parity[32];

  private:
    std::vector<Fiber> fibers;
    unsigned now = 0, count = 0;
    void (*call)(void **) = nullptr;
    void **parameters = nullptr;
#if defined(__x86_64__)
    void *scheduler = nullptr;
#else
    ucontext_t scheduler;
#endif
    static void body();
    void start(Fiber &fiber);
    void enter(unsigned index);
    void leave();
    void run_warp(unsigned warp);
};

inline Block block;

inline void Block::body() {
    block.call(block.parameters);
    block.current().state = State::Done;
    block.leave();
    abort();
}

inline void Block::start(Fiber &fiber) {
    if (!fiber.stack) {
        // A page without access below each stack: an overflow is a fault, not another's memory.
        char *memory = (char *)mmap(nullptr, STACK + 4096, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        mprotect(memory, 4096, PROT_NONE);
        fiber.stack = memory + 4096;
    }
    fiber.state = State::Ready;
#if defined(__x86_64__)
    void **top = (void **)(fiber.stack + STACK);
    *--top = nullptr;
    *--top = (void *)&Block::body;
    fiber.pointer = top - 6;
#else
    getcontext(&fiber.place);
    fiber.place.uc_stack.ss_sp = fiber.stack;
    fiber.place.uc_stack.ss_size = STACK;
    makecontext(&fiber.place, &Block::body, 0);
#endif
}

inline void Block::enter(unsigned index) {
    now = index;
    const Dim &size = context.block_size;
    context.thread = {index % size.x, index / size.x % size.y, index / size.x / size.y};
    context.lane = index % 32;
#if defined(__x86_64__)
    emulated_switch(&scheduler, fibers[index].pointer);
#else
    swapcontext(&scheduler, &fibers[index].place);
#endif
}

inline void Block::leave() {
#if defined(__x86_64__)
    emulated_switch(&fibers[now].pointer, scheduler);
#else
    swapcontext(&fibers[now].place, &scheduler);
#endif
}

// Runs a warp until all its lanes stand at a barrier or are done.
inline void Block::run_warp(unsigned warp) {
    unsigned first = warp * 32, last = std::min(first + 32, count);
    unsigned order[32];
    for (unsigned i = 0; i < last - first; ++i) order[i] = first + i;
    for (;;) {
        std::shuffle(order, order + (last - first), chance);
        for (unsigned i = 0; i < last - first; ++i)
            if (fibers[order[i]].state == State::Ready) enter(order[i]);
        unsigned meeting = 0, line = 0;
        for (unsigned i = first; i < last; ++i)
            if (fibers[i].state == State::Warp) ++meeting, line = fibers[i].line;
        if (meeting == 0) return;
        for (unsigned i = first; i < last; ++i) {
            if (fibers[i].state == State::Warp && fibers[i].line == (int)line) continue;
            refuse("a warp collective at line " + std::to_string(line) + " was not reached by all lanes of warp " +
                   std::to_string(warp));
        }
        for (unsigned i = first; i < last; ++i) fibers[i].state = State::Ready;
        parity[warp] ^= 1;
    }
}

inline void Block::run(unsigned threads, void (*function)(void **), void **values) {
    count = threads, call = function, parameters = values;
    if (fibers.size() < count) fibers.resize(count);
    for (unsigned i = 0; i < count; ++i) start(fibers[i]);
    unsigned warps = (count + 31) / 32, order[32];
    for (unsigned i = 0; i < warps; ++i) order[i] = i, parity[i] = 0;
    for (;;) {
        std::shuffle(order, order + warps, chance);
        for (unsigned i = 0; i < warps; ++i) run_warp(order[i]);
        unsigned waiting = 0, stranger = 0;
        for (unsigned i = 0; i < count; ++i) waiting += fibers[i].state == State::Barrier;
        if (waiting == 0) return;
        for (unsigned i = 1; i < count; ++i)
            if (fibers[i].state != fibers[0].state || fibers[i].line != fibers[0].line) stranger = i;
        if (waiting < count || stranger) {
            std::string lines;
            for (unsigned i : {0u, stranger})
                lines += ", thread " + std::to_string(i) +
                         (fibers[i].state == State::Done ? " returned" : " is at line " + std::to_string(fibers[i].line));
            refuse("a barrier was reached by " + std::to_string(waiting) + " of " + std::to_string(count) +
                   " threads" + lines);
        }
        for (unsigned i = 0; i < count; ++i) fibers[i].state = State::Ready;
    }
}

inline void barrier(int line) {
    Fiber &fiber = block.current();
    fiber.state = State::Barrier;
    fiber.line = line;
    block.yield();
}

inline const Slot *meet(int line, unsigned mask, const void *value, unsigned size) {
    if (mask != ~0u) refuse("a warp collective at line " + std::to_string(line) + " is not for all lanes");
    if (size > sizeof(Slot)) refuse("a warp collective of more than 64 bytes a lane");
    unsigned lane = context.lane, flat = context.thread.x + context.block_size.x *
                    (context.thread.y + context.block_size.y * context.thread.z);
    unsigned warp = flat / 32, side = block.parity[warp];
    memcpy(block.slots[warp][side][lane].bytes, value, size);
    Fiber &fiber = block.current();
    fiber.state = State::Warp;
    fiber.line = line;
    block.yield();
    return block.slots[warp][side];
}
} // namespace emulated
