// What all kernels share: dropout, BN's multiply-add, sums over a block's rows.
//
// Values are NHWC: row p is a pixel, counted over all images; its channels are adjacent. Maps are
// stored as `store_t`, their gradients as `grad_t`: f32, or with BF16 bfloat16, which halves the
// bytes that a step moves. Parameters, statistics and sums are always f32. A kernel computes from
// the stored values: statistics are those of the rounded maps, so that everything that normalises
// or masks a map sees the same numbers.
// A tile is ROWS pixels by COLUMNS channels, computed by THREADS threads. Sums over pixels are sums
// of tiles' sums, each always in the same order and without atomics, so that a step repeats bit for
// bit.

#define INFINITE __uint_as_float(0x7f800000u)

// What changes from step to step, in device memory, so that a captured graph need not change. The
// order is that of the words in executor/contract.rs.
struct Scalars {
    unsigned long long seed;
    float smoothing, scale;
    unsigned accumulate;
    float rate, momentum, decay;
    unsigned nesterov;
    float fresh1, fresh2, correction1, correction2, epsilon; // AdamW's
    float clip, norm_epsilon;                                // the largest norm; 0 for any
    float fresh;                                             // the average's share of the current values
    float broken; // not 0: a loss was not finite, which the host does not know yet; no descent
    float factor; // which gradients are clipped with
};
static_assert(sizeof(Scalars) == 4 * SCALAR_WORDS, "the host has as many words");

#if BF16
#ifdef CUDA_EMULATOR
__device__ inline unsigned bf16_bits(float x) {
    unsigned u = __float_as_uint(x);
    if (x != x) return 0x7fff;
    return (u + 0x7fff + ((u >> 16) & 1)) >> 16; // to nearest, ties to even
}
#endif

// Two f32 as bf16, the first in the lower half; with RELU negative values become 0.
template <bool RELU> __device__ __forceinline__ unsigned pack_bf16(float low, float high) {
#ifdef CUDA_EMULATOR
    auto bits = [](float x) { return RELU && x < 0.0f ? 0 : bf16_bits(x); };
    return bits(low) | bits(high) << 16;
#else
    unsigned packed;
    if (RELU) asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    else asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#endif
}

// A bfloat16 in memory: values are rounded to nearest.
struct Bf16 {
    unsigned short bits;
    __device__ __forceinline__ Bf16 &operator=(float x) {
        bits = (unsigned short)(pack_bf16<false>(x, 0.0f) & 0xffff);
        return *this;
    }
    __device__ __forceinline__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
};
typedef Bf16 store_t, grad_t;
#else
typedef float store_t, grad_t;
#endif

// A NaN stays.
__device__ __forceinline__ float relu(float z) {
#ifdef CUDA_EMULATOR
    return z < 0.0f ? 0.0f : z;
#else
    float positive;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(positive) : "f"(z));
    return positive;
#endif
}

// The same value, hidden from the compiler for compute capability 10.0 and later, which would keep
// what is computed from it and has no registers for that: it is computed again where it is used.
__device__ __forceinline__ int afresh(int value) {
#if !defined CUDA_EMULATOR && __CUDA_ARCH__ >= 1000
    asm volatile("" : "+r"(value));
#endif
    return value;
}

// A thread loads, computes and stores VECTOR adjacent values at once. VECTOR divides all counts of
// channels of a program, so that no vector crosses the end of a row, and is at most 16 bytes.
#ifndef VECTOR
#define VECTOR 1
#endif
constexpr int PACK = VECTOR * sizeof(store_t);

// A vector of numbers to compute with.
struct Values {
    float v[VECTOR];
    __device__ __forceinline__ float &operator[](int i) { return v[i]; }
    __device__ __forceinline__ float operator[](int i) const { return v[i]; }
};

// A vector as it is stored.
struct alignas(PACK) Pack {
#if !BF16
    float v[VECTOR];
    __device__ __forceinline__ float operator[](int i) const { return v[i]; }
#elif VECTOR == 1
    unsigned short bits;
    __device__ __forceinline__ float operator[](int) const { return __uint_as_float((unsigned)bits << 16); }
#else
    unsigned words[VECTOR / 2];
    __device__ __forceinline__ float operator[](int i) const {
        return __uint_as_float(i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16);
    }
#endif
    __device__ __forceinline__ static Pack zeros() { return of<false>(Values{}); }
    // Rounds; with RELU negative values become 0.
    template <bool RELU> __device__ __forceinline__ static Pack of(const Values &from) {
        Pack pack;
#if !BF16
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) pack.v[i] = RELU ? relu(from[i]) : from[i];
#elif VECTOR == 1
        pack.bits = (unsigned short)(pack_bf16<RELU>(from[0], 0.0f) & 0xffff);
#else
#pragma unroll
        for (int i = 0; i < VECTOR; i += 2) pack.words[i / 2] = pack_bf16<RELU>(from[i], from[i + 1]);
#endif
        return pack;
    }
};

// Vectors start at multiples of their size, which the emulator checks. Shared memory whose size the
// host gives at launch may exceed the 48 KiB that a kernel may declare.
#ifndef CUDA_EMULATOR
#define ALIGNED(at, size) (at)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif
__device__ __forceinline__ Pack pack_at(const store_t *at) { return *reinterpret_cast<const Pack *>(ALIGNED(at, PACK)); }
__device__ __forceinline__ void put_pack(store_t *at, const Pack &pack) { *reinterpret_cast<Pack *>(ALIGNED(at, PACK)) = pack; }
// The same in global memory, for sure at once: the compiler may store words one by one whose values
// it has at different times.
__device__ __forceinline__ void put_global(store_t *at, const Pack &pack) {
#if BF16 && VECTOR == 8 && !defined CUDA_EMULATOR
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(at)), "r"(pack.words[0]), "r"(pack.words[1]),
                 "r"(pack.words[2]), "r"(pack.words[3]) : "memory");
#else
    put_pack(at, pack);
#endif
}

// VECTOR f32, loaded four at a time.
struct alignas(VECTOR % 4 ? 4 : 16) Floats { float v[VECTOR]; };
__device__ __forceinline__ Values floats_at(const float *at) {
    Floats own = *reinterpret_cast<const Floats *>(ALIGNED(at, alignof(Floats)));
    Values values;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) values[i] = own.v[i];
    return values;
}
// Loads values that may start anywhere, as parameters do.
__device__ __forceinline__ Values parameters_at(const float *at) {
    Values values;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) values[i] = at[i];
    return values;
}
__device__ __forceinline__ void put_floats(float *at, const Values &values) {
    Floats own;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) own.v[i] = values[i];
    *reinterpret_cast<Floats *>(ALIGNED(at, alignof(Floats))) = own;
}

// Copies SIZE bytes into shared memory, a vector unless a kernel says otherwise, or zeros if `from`
// is null. The copy runs until the thread waits for it. `any` is any valid address. What is read ONCE
// on a multiprocessor passes its cache by, if the vector is as long as that takes.
template <int SIZE = PACK, bool ONCE = false> __device__ __forceinline__ void copy_async(store_t *into, const store_t *from, const store_t *any) {
#ifdef CUDA_EMULATOR
    emulated::copy_async(into, from, SIZE);
#else
    if (SIZE < 4) {
        *into = from ? (float)*from : 0.0f;
        return;
    }
    unsigned at = (unsigned)__cvta_generic_to_shared(into), bytes = from ? SIZE : 0;
    if constexpr (ONCE && SIZE == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from ? from : any), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from ? from : any), "n"(SIZE < 4 ? 4 : SIZE), "r"(bytes) : "memory");
#endif
}
__device__ __forceinline__ void copies_done() {
#ifdef CUDA_EMULATOR
    emulated::copies_done();
#else
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Makes a group of the copies that the thread has asked for since its last group.
__device__ __forceinline__ void copies_grouped() {
#ifdef CUDA_EMULATOR
    emulated::copies_grouped();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits for all of the thread's groups but the last LATER.
template <int LATER> __device__ __forceinline__ void copies_done_but() {
#ifdef CUDA_EMULATOR
    emulated::copies_done_but(LATER);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
#endif
}

// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
__device__ __forceinline__ unsigned long long mix(unsigned long long z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

#ifndef DROPOUT
#define DROPOUT 0
#define DROPOUT_THRESHOLD 1
#define DROPOUT_SCALE 0
#endif

// Dropout without a mask in memory: the factor of value number `index` of a site is a function of
// its position. The numbers are those of the CPU executor.
struct Dropout {
    unsigned long long key;
    bool on;
    // A negative site drops nothing.
    __device__ Dropout(const Scalars *scalars, int site) : key(0), on(DROPOUT && site >= 0) {
        if (on) key = mix(scalars->seed ^ mix((unsigned long long)site));
    }
    __device__ float factor(unsigned long long index) const {
        if (!on) return 1.0f;
        unsigned long long bits = mix(key + index * 0x9e3779b97f4a7c15ull);
        return (unsigned)(bits >> 32) >= (unsigned)DROPOUT_THRESHOLD ? __uint_as_float((unsigned)DROPOUT_SCALE) : 0.0f;
    }
};

// A tile of M x N results before it is written, and memory for the sums of its columns.
template <int M, int N> struct Stage {
    static constexpr int PARTS = THREADS / N, GROUPS = N / VECTOR, ACROSS = THREADS / GROUPS;
    alignas(16) float value[M][N + 4];
    float part[2][PARTS][N];
    // The rows and the columns that this thread works on: a vector in every ACROSS-th row from
    // `own_row` on.
    __device__ static int own_row() { return threadIdx.x / GROUPS; }
    __device__ static int own_column() { return threadIdx.x % GROUPS * VECTOR; }

    // For each column, the sum of `term(row, column)` over `rows` rows, by PARTS threads for each
    // column. All threads get the sum of column `threadIdx.x % N`.
    template <class Term> __device__ float column_sum(int which, int rows, Term term) {
        int column = threadIdx.x % N, own = threadIdx.x / N;
        float sum = 0.0f;
        for (int row = own * (M / PARTS); row < min(rows, (own + 1) * (M / PARTS)); ++row) sum += term(row, column);
        part[which][own][column] = sum;
        __syncthreads();
        sum = part[which][0][column];
        for (int i = 1; i < PARTS; ++i) sum += part[which][i][column];
        return sum;
    }

    // Mean and sum of squared deviations of each column of the tile, which must be complete, with a
    // barrier after it. Writes partial[tile][channel][2], without columns from `count` on.
    __device__ void moments(int rows, int count, int channels, int first, int tile, float *partial) {
        float mean = column_sum(0, rows, [&](int r, int c) { return value[r][c]; }) / (float)rows;
        float squares = column_sum(1, rows, [&](int r, int c) {
            float d = value[r][c] - mean;
            return d * d;
        });
        int column = threadIdx.x;
        if (column < count) {
            float *into = partial + ((size_t)tile * channels + first + column) * 2;
            into[0] = mean;
            into[1] = squares;
        }
    }
};
