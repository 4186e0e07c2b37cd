// The device's memory: the host's, between pages without access.
#pragma once
#include "fibers.hpp"
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace emulated {
enum Error {
    Success = 0, InvalidValue = 1, OutOfMemory = 2, NoDevice = 100, InvalidDevice = 101, InvalidImage = 200,
    InvalidHandle = 400, NotFound = 500, LaunchFailed = 719, NotSupported = 801, CaptureUnsupported = 900,
    CaptureMerge = 902, CaptureUnjoined = 904, CaptureIsolation = 907,
};

struct Allocation {
    char *map;
    size_t mapped, size;
    // Whether its stream has come to it, and whether it was asked to be freed.
    bool ready, leaving;
    std::vector<bool> read, written; // which bytes, by the kernel at hand, where somebody watches
};
inline std::map<uintptr_t, Allocation> allocations;
inline size_t memory_limit = size_t(8) << 30, memory_used = 0;
constexpr size_t PAGE = 4096, ALIGNMENT = 16;
constexpr unsigned char FILL = 0xff; // a NaN in every float format

// Places of what was freed last, without access, so that who uses them still is seen.
struct Freed { char *map; size_t mapped, size; };
inline std::deque<Freed> freed;
constexpr size_t REMEMBERED = 1000;

// Gives access to memory; it starts as NaN.
inline void open(uintptr_t pointer) {
    auto found = allocations.find(pointer);
    if (found == allocations.end()) return;
    Allocation &own = found->second;
    mprotect(own.map + PAGE, own.mapped - 2 * PAGE, PROT_READ | PROT_WRITE);
    memset(own.map + PAGE, FILL, own.mapped - 2 * PAGE);
    own.ready = true;
}

// Memory that is there at once, or when it is opened.
inline Error allocate(uintptr_t *pointer, size_t size, bool at_once = true) {
    if (size == 0) return InvalidValue;
    if (memory_used + size > memory_limit) return OutOfMemory;
    size_t body = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t pages = (body + PAGE - 1) / PAGE * PAGE, mapped = pages + 2 * PAGE;
    char *map = (char *)mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return OutOfMemory;
    *pointer = (uintptr_t)map + PAGE + pages - body;
    allocations[*pointer] = {map, mapped, size, false, false, {}, {}};
    memory_used += size;
    if (at_once) open(*pointer);
    return Success;
}

// What lies around an allocation inside its pages must be as it was filled.
inline void check_margins(uintptr_t pointer, const Allocation &allocation, const char *when) {
    static const std::string filled(PAGE, (char)FILL);
    auto margin = [&](const char *from, const char *to) {
        // Almost always whole, so compared at once. In front it is a page at most, and behind 15 bytes.
        if (from == to || !memcmp(from, filled.data(), to - from)) return;
        for (; from < to; ++from)
            if ((unsigned char)*from != FILL)
                refuse(std::string("wrote outside an allocation of ") + std::to_string(allocation.size) + " bytes, " +
                       std::to_string((long)(from - (const char *)pointer)) + " bytes from its start (found " + when + ")");
    };
    margin(allocation.map + PAGE, (const char *)pointer);
    margin((const char *)pointer + allocation.size, allocation.map + allocation.mapped - PAGE);
}

inline Error release(uintptr_t pointer) {
    auto found = allocations.find(pointer);
    if (found == allocations.end()) return InvalidValue;
    Allocation &own = found->second;
    if (own.ready) check_margins(pointer, own, "when it was freed");
    memory_used -= own.size;
    mmap(own.map, own.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    freed.push_back({own.map, own.mapped, own.size});
    if (freed.size() > REMEMBERED) {
        munmap(freed.front().map, freed.front().mapped);
        freed.pop_front();
    }
    allocations.erase(found);
    return Success;
}

// The allocation that some bytes lie in, or none.
inline const Allocation *allocation_of(uintptr_t pointer, size_t size) {
    auto next = allocations.upper_bound(pointer);
    if (next == allocations.begin()) return nullptr;
    const auto &[start, allocation] = *std::prev(next);
    return pointer + size <= start + allocation.size ? &allocation : nullptr;
}
inline bool inside(uintptr_t pointer, size_t size) { return allocation_of(pointer, size); }

// Work of a stream on memory that it was given when the work was asked for.
inline void check_there(uintptr_t pointer, size_t size) {
    const Allocation *own = allocation_of(pointer, size);
    if (!own) refuse("a copy or memset of " + std::to_string(size) + " bytes went to memory that has been freed");
    if (!own->ready)
        refuse("a copy or memset of " + std::to_string(size) + " bytes went to memory that another stream has yet to allocate");
}
} // namespace emulated
