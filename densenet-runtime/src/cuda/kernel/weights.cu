// The weights of convolutions as operands of products: from f32, maps x channels x taps, to the
// type that operands are stored as, taps x maps x channels. This is done once a pass, so that
// kernels that read a weight many times copy it as it is. Each value takes 4 bytes of reads, 2 or 4
// of writes.

// The table has WORDS for each of the WEIGHTS weights: its position among the parameters, its
// destination, its channels, taps and maps, and the first block that packs it. A block packs PACKED
// values or somewhat fewer, so that no weight takes longer than the others: they differ a thousand
// times in size.
static_assert(VALUES < 1ll << 31, "values of all weights, which are counted in 31 bits");

// Grid: the blocks of all weights.
extern "C" __global__ void __launch_bounds__(THREADS) pack_weights(const float *parameters, const int *table, store_t *packed) {
    __shared__ int weight;
    int block = blockIdx.x, t = threadIdx.x;
    for (int i = t; i < WEIGHTS; i += THREADS) {
        int next = min(i + 1, WEIGHTS - 1);
        bool before = table[WORDS * i + 5] <= block, after = next == i || block < table[WORDS * next + 5];
        if (before && after) weight = i;
    }
    __syncthreads();
    const int *own = table + WORDS * weight;
    const float *from = parameters + own[0];
    store_t *into = packed + own[1];
    int taps = own[3], area = own[4] * own[2], share = PACKED / taps, first = (block - own[5]) * share;
    int last = min(first + share, area);
    if (taps == 1) {
        constexpr int EACH = PACKED / THREADS;
        float values[EACH];
#pragma unroll
        for (int k = 0; k < EACH; ++k) values[k] = first + t + k * THREADS < last ? from[first + t + k * THREADS] : 0.0f;
#pragma unroll
        for (int k = 0; k < EACH; ++k)
            if (first + t + k * THREADS < last) into[first + t + k * THREADS] = values[k];
        return;
    }
    // A thread reads all taps of a map's channel, so that a warp reads whole lines of memory.
    for (int i = first + t; i < last; i += THREADS)
#pragma unroll 9
        for (int tap = 0; tap < taps; ++tap) into[(size_t)tap * area + i] = from[(size_t)i * taps + tap];
}
