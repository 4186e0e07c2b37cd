// What all kernels share: dropout, BN's multiply-add, sums over a block's rows.
//
// Values are NHWC: row p is a pixel, counted over all images; its channels lie side by side.
// Maps are stored as `store_t`, their gradients as `grad_t`: f32, or with BF16 bfloat16, which
// halves what a step moves. Parameters, statistics and sums are f32 in either case. A kernel
// computes from what is stored: statistics are those of the rounded maps, so that all who
// normalise or mask a map see the same numbers.
// A tile is ROWS pixels by COLUMNS channels, worked on by THREADS threads. Sums over pixels are
// sums of tiles' sums, each in an order of its own choosing but always the same, so that a step
// repeats bit for bit: there are no atomics.

constexpr int ROWS = 64, COLUMNS = 64, THREADS = 256;

#define INFINITE __uint_as_float(0x7f800000u)

// What changes from step to step, in device memory, so that a captured graph need not change.
// In the order of the words in feed.rs.
struct Scalars {
    unsigned long long seed;
    float smoothing, scale;
    unsigned accumulate;
    float rate, momentum, decay;
    unsigned nesterov;
    unsigned broken; // a loss was not finite, which the host does not know yet: no descent

};

#if BF16
__device__ __forceinline__ float widened(unsigned bits) { return __uint_as_float(bits << 16); }

#ifdef CUDA_EMULATOR
__device__ inline unsigned bf16_bits(float x) {
    unsigned u = __float_as_uint(x);
    if (x != x) return 0x7fff;
    return (u + 0x7fff + ((u >> 16) & 1)) >> 16; // to nearest, ties to even
}
#endif

// Two f32 as bf16, the first in the lower half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
#ifdef CUDA_EMULATOR
    return bf16_bits(low) | bf16_bits(high) << 16;
#else
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#endif
}

// A bfloat16 in memory: rounds what it is given, to nearest.
struct Bf16 {
    unsigned short bits;
    __device__ __forceinline__ Bf16 &operator=(float x) {
        bits = (unsigned short)(pack_bf16(x, 0.0f) & 0xffff);
        return *this;
    }
    __device__ __forceinline__ operator float() const { return widened(bits); }
};
typedef Bf16 store_t, grad_t;
#else
typedef float store_t, grad_t;
#endif

__device__ __forceinline__ float relu(float z) { return z < 0.0f ? 0.0f : z; } // lets NaN through

// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
__device__ __forceinline__ unsigned long long mix(unsigned long long z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

#ifndef DROPOUT
#define DROPOUT 0
#define DROPOUT_THRESHOLD 0
#define DROPOUT_SCALE 0
#endif

// Dropout without a mask in memory: what value number `index` of a site is multiplied with is a
// function of its place. The same numbers as the CPU executor's.
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

// A tile of results on its way to memory, and what its columns' sums are made in.
struct Stage {
    float value[ROWS][COLUMNS + 1];
    float quarter[2][4][COLUMNS];
};

// For each column of the tile, the sum of `term(row, column)` over `rows` rows: four threads a
// column, a quarter of the rows each. All threads get the sum of column `threadIdx.x % COLUMNS`.
template <class Term> __device__ float column_sum(Stage &stage, int which, int rows, Term term) {
    int column = threadIdx.x % COLUMNS, part = threadIdx.x / COLUMNS;
    float sum = 0.0f;
    for (int row = part * (ROWS / 4); row < min(rows, (part + 1) * (ROWS / 4)); ++row) sum += term(row, column);
    stage.quarter[which][part][column] = sum;
    __syncthreads();
    const float(&q)[4][COLUMNS] = stage.quarter[which];
    return (q[0][column] + q[1][column]) + (q[2][column] + q[3][column]);
}

// Mean and sum of squared deviations of each column of `stage.value`, which is complete and
// behind a barrier. Goes to partial[tile][channel][2]; columns from `count` on are left out.
__device__ __forceinline__ void column_moments(Stage &stage, int rows, int count, int channels, int first, float *partial) {
    float mean = column_sum(stage, 0, rows, [&](int r, int c) { return stage.value[r][c]; }) / (float)rows;
    float squares = column_sum(stage, 1, rows, [&](int r, int c) {
        float d = stage.value[r][c] - mean;
        return d * d;
    });
    int column = threadIdx.x;
    if (column < count) {
        float *into = partial + ((size_t)blockIdx.x * channels + first + column) * 2;
        into[0] = mean;
        into[1] = squares;
    }
}
