// The weights of convolutions as operands of products: from f32, maps x channels x taps, to the
// type that operands are stored as, taps x maps x channels. This is done once a pass, so that
// kernels that read a weight many times copy it as it is. Each value takes 4 bytes of reads, 2 or 4
// of writes.

// The table has WORDS for each weight: its position among the parameters, its destination, its
// channels, taps and maps.
static_assert(VALUES < 1ll << 31, "values of all weights, which are counted in 31 bits");

// Grid: any number of blocks for each weight, weights.
extern "C" __global__ void __launch_bounds__(THREADS) pack_weights(const float *parameters, const int *table, store_t *packed) {
    const int *own = table + WORDS * blockIdx.y;
    const float *from = parameters + own[0];
    store_t *into = packed + own[1];
    int channels = own[2], taps = own[3], area = own[4] * channels;
    // A thread reads all taps of a map's channel, so that a warp reads whole lines of memory.
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < area; i += gridDim.x * THREADS)
        for (int tap = 0; tap < taps; ++tap) into[(size_t)tap * area + i] = from[(size_t)i * taps + tap];
}
