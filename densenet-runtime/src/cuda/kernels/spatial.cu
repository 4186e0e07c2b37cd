// The way back through the 3x3 convolution of a dense layer: the gradients of what it read and of
// its weight, in two kernels, each 2 P C N KERNEL^2 operations. Both read the P C values that it
// read; the first also passes their gradient.

// The gradient of the input, through ReLU and the affine part of BN. `gamma` given: added, times
// gamma, to `into` (pixels x IN_STRIDE). Else it is stored as it is, and the caller's undoing of
// BN has gamma. Grid: tiles of pixels, tiles of channels.
extern "C" __global__ void __launch_bounds__(THREADS) convolution_pull(
    const grad_t *dout, const float *weight, const store_t *in, const float *scale, const float *shift, const float *mean,
    const float *gamma, grad_t *into, float *partial, int add, int pixels, int channels) {
    __shared__ Tile tile;
    __shared__ Stage stage;
    int row0 = blockIdx.x * ROWS, channel0 = blockIdx.y * COLUMNS;
    Sums sums;
    Above<true> a = {dout, pixels, row0, 0};
    Weight<false> b = {weight, channels, 0, channel0};
    product(tile, sums, TAPS, 0, MAPS, a, b);
    sums.stage(stage);
    __syncthreads();
    pull(stage, Norm{scale, shift, mean}, in, IN_STRIDE, channel0, min(COLUMNS, channels - channel0), channels, partial,
         [&](int row) -> long { return row0 + row < pixels ? row0 + row : -1; },
         [&](int row, int column) { return stage.value[row][column]; },
         [&](long p, int c, float masked) {
             grad_t *at = into + p * IN_STRIDE + c;
             *at = add ? fmaf(gamma[c], masked, *at) : masked;
         });
}

// The gradient of the weight: each slice of pixels makes a share of its own, slices x weight, in
// the weight's order. Grid: tiles of channels, tiles of maps x taps, slices of `length` pixels.
extern "C" __global__ void __launch_bounds__(THREADS) convolution_weight(
    const grad_t *dout, const store_t *in, const float *scale, const float *shift, float *share, int pixels, int channels,
    int length) {
    __shared__ Tile tile;
    int channel0 = blockIdx.x * COLUMNS, map0 = blockIdx.y / TAPS * ROWS, tap = blockIdx.y % TAPS;
    int first = blockIdx.z * length, last = min(first + length, pixels);
    Sums sums;
    Above<false> a = {dout, last, 0, map0};
    Normalised<false> b = {in, scale, shift, channels, last, 0, channel0, tap};
    product(tile, sums, 1, first, last, a, b);
    for (int i = 0; i < 16; ++i) {
        int n = map0 + Sums::row(i), c = channel0 + Sums::column(i);
        if (n < MAPS && c < channels)
            share[(size_t)blockIdx.z * MAPS * channels * TAPS + ((size_t)n * channels + c) * TAPS + tap] = sums.value[i];
    }
}
