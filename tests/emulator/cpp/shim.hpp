// What CUDA C++ needs in order to be host C++: put in front of every kernel by the emulated
// NVRTC. A thread of a block is a fiber; it leaves the processor at barriers and warp
// collectives only. The emulated driver runs the fibers and talks to a module through `Context`.
//
// Kernels are compiled many times, with other constants, and C++'s headers would take a third of that:
// what is needed of the library is declared here.
#pragma once
#include <stddef.h>
#include <stdint.h>

extern "C" {
void *memcpy(void *, const void *, size_t) noexcept;
void *realloc(void *, size_t) noexcept;
float fmaf(float, float, float) noexcept, sqrtf(float) noexcept, expf(float) noexcept, logf(float) noexcept;
double sqrt(double) noexcept, exp(double) noexcept, log(double) noexcept, log1p(double) noexcept;
}

#define CUDA_EMULATOR 1

namespace emulated {
struct Dim { unsigned x, y, z; };

// One lane's value in a warp collective.
struct alignas(64) Slot { unsigned char bytes[64]; };

struct Context {
    Dim thread, block, block_size, grid_size;
    unsigned lane;
    // All threads of the block meet here.
    void (*barrier)(int line);
    // The 32 lanes meet; each sees what all brought. Valid until the lane's next barrier or next-but-one meeting.
    const Slot *(*meet)(int line, unsigned mask, const void *value, unsigned size);
    // The whole warp's products and loads of matrices, as the tensor cores have them (fibers.hpp).
    void (*mma_m16n8k16_bf16)(int line, float *d, const unsigned *a, const unsigned *b);
    void (*ldmatrix_x4)(int line, bool transposed, unsigned *into, const void *row);
    // A kernel that was compiled to be watched reads or writes here.
    void (*touch)(const void *at, unsigned size, bool write);
    // Shared memory whose size the launch gives.
    unsigned char *dynamic;
    // Ends the process.
    void (*refuse)(const char *what);
};

// What a thread asked for and did not wait for is another's no more.
inline void forget_copies();

// A kernel as the driver calls it: the sizes of its parameters (ended by 0), and the call.
struct Kernel {
    const char *name;
    const unsigned *sizes;
    void (*call)(void **parameters);
};

template <size_t... I> struct Indices {};
template <size_t N, size_t... I> struct CountTo : CountTo<N - 1, N - 1, I...> {};
template <size_t... I> struct CountTo<0, I...> { typedef Indices<I...> All; };

template <class... A> struct Signature {
    static constexpr unsigned sizes[] = {unsigned(sizeof(A))..., 0};
    template <size_t... I>
    static void call(void (*kernel)(A...), void **p, Indices<I...>) {
        forget_copies();
        kernel(*static_cast<A *>(p[I])...);
    }
};
template <class... A> const unsigned *sizes_of(void (*)(A...)) { return Signature<A...>::sizes; }
template <class... A> void call(void (*kernel)(A...), void **p) {
    Signature<A...>::call(kernel, p, typename CountTo<sizeof...(A)>::All{});
}
} // namespace emulated

static emulated::Context *emulated_context __attribute__((unused)) = nullptr;

namespace emulated {
// Copies that a thread has asked for. They are done when it waits for them, and not before, so that
// who does not wait reads what was there. `group` counts the thread's groups until then.
struct Copy { unsigned char *into; const unsigned char *from; unsigned size, group; };
struct Copies { Copy *asked; unsigned count, room, groups; };
static Copies copies[1024];
inline Copies &own_copies() {
    const Dim &t = emulated_context->thread, &size = emulated_context->block_size;
    return copies[t.x + size.x * (t.y + size.y * t.z)];
}
inline void forget_copies() {
    Copies &own = own_copies();
    own.count = own.groups = 0;
}
// Zeros from nowhere. A card copies 4, 8 or 16 bytes; less is copied at once.
inline void copy_async(void *into, const void *from, unsigned size) {
    if ((uintptr_t)into % size || (uintptr_t)from % size) emulated_context->refuse("copies a vector that is not aligned");
    Copies &own = own_copies();
    if (own.count == own.room) {
        own.room = own.room ? 2 * own.room : 16;
        own.asked = (Copy *)realloc(own.asked, own.room * sizeof(Copy));
    }
    own.asked[own.count++] = {(unsigned char *)into, (const unsigned char *)from, size, own.groups};
}
inline void copies_grouped() { ++own_copies().groups; }
inline void copy(const Copy &asked) {
    static const unsigned char zeros[16] = {};
    const unsigned char *from = asked.from ? asked.from : zeros;
#if __SANITIZE_THREAD__
    // In pieces that a watched kernel tells of.
    for (unsigned i = 0; i < asked.size; i += 2) *(uint16_t *)(asked.into + i) = *(const uint16_t *)(from + i);
#else
    if (asked.size == 16) memcpy(asked.into, from, 16);
    else memcpy(asked.into, from, asked.size);
#endif
}
// Does the copies of the groups before `group`.
inline void copies_done_before(unsigned group) {
    Copies &own = own_copies();
    unsigned done = 0;
    for (; done < own.count && own.asked[done].group < group; ++done) copy(own.asked[done]);
    own.count -= done;
    for (unsigned i = 0; done && i < own.count; ++i) own.asked[i] = own.asked[done + i];
}
inline void copies_done() { copies_done_before(own_copies().groups + 1); }
inline void copies_done_but(unsigned later) {
    unsigned groups = own_copies().groups;
    copies_done_before(groups > later ? groups - later : 0);
}
template <class T> inline T *aligned(T *at, unsigned size) {
    if ((uintptr_t)at % size) emulated_context->refuse("loads or stores a vector that is not aligned");
    return at;
}
} // namespace emulated
#define ALIGNED(at, size) emulated::aligned(at, size)
#define DYNAMIC_SHARED(name) unsigned char *name = emulated_context->dynamic

// What the compiler calls at each access where the emulated NVRTC asks it to (the calls are those
// of GCC's and Clang's thread sanitizer, whose library is not there).
#if __SANITIZE_THREAD__
#define UNWATCHED extern "C" __attribute__((visibility("hidden"), no_sanitize("thread")))
UNWATCHED void emulated_touch(void *at, size_t size, bool write) {
    // While a module is loaded nobody watches yet.
    if (emulated_context && emulated_context->touch) emulated_context->touch(at, size, write);
}
#define WATCHED(size)                                                               \
    UNWATCHED void __tsan_read##size(void *at) { emulated_touch(at, size, false); } \
    UNWATCHED void __tsan_write##size(void *at) { emulated_touch(at, size, true); } \
    UNWATCHED void __tsan_unaligned_read##size(void *at) { emulated_touch(at, size, false); } \
    UNWATCHED void __tsan_unaligned_write##size(void *at) { emulated_touch(at, size, true); }
WATCHED(1) WATCHED(2) WATCHED(4) WATCHED(8) WATCHED(16)
UNWATCHED void __tsan_read_range(void *at, size_t size) { emulated_touch(at, size, false); }
UNWATCHED void __tsan_write_range(void *at, size_t size) { emulated_touch(at, size, true); }
UNWATCHED void __tsan_func_entry(void *) {}
UNWATCHED void __tsan_func_exit() {}
UNWATCHED void __tsan_init() {}
#endif

// Of the linker: where the module's shared memory lies.
#define __shared__ static __attribute__((section("emulated_shared")))
__attribute__((section("emulated_shared"), used)) static unsigned char emulated_some_shared = 0;
extern "C" __attribute__((visibility("hidden"))) unsigned char __start_emulated_shared[];
extern "C" __attribute__((visibility("hidden"))) unsigned char __stop_emulated_shared[];

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__

#define threadIdx (emulated_context->thread)
#define blockIdx (emulated_context->block)
#define blockDim (emulated_context->block_size)
#define gridDim (emulated_context->grid_size)
#define __syncthreads() emulated_context->barrier(__LINE__)
#define __shfl_xor_sync(mask, value, bits) \
    emulated::shuffle(__LINE__, mask, value, int(emulated_context->lane) ^ (bits))

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

namespace emulated {
template <class T> T of_lane(const Slot *slots, unsigned lane) {
    T value;
    memcpy(&value, slots[lane % 32].bytes, sizeof(T));
    return value;
}
template <class T> T shuffle(int line, unsigned mask, T value, int from) {
    return of_lane<T>(emulated_context->meet(line, mask, &value, sizeof(T)), from);
}
} // namespace emulated

inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
inline float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
