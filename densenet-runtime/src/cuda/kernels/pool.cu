// The ImageNet stem's BN, ReLU and max pool, and the sums of its way back. Follows stem.cu, which
// has the formula and the way back itself.
//
// Forward: reads each convolved value up to 2.25 times (mostly from cache), writes a value and a
// byte for every fourth. Sums: reads each convolved value, and up to four choices, once.

// `out` is the first block's buffer. Grid: tiles of pooled pixels, tiles of maps.
extern "C" __global__ void __launch_bounds__(THREADS) stem_pool(
    const store_t *convolved, const float *scale, const float *shift, store_t *out, unsigned char *choice, float *partial,
    int stride, int pooled, int training) {
    __shared__ Stage<ROWS, COLUMNS> stage;
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS, rows = min(ROWS, pooled - row0);
    int map = threadIdx.x % COLUMNS, m = map0 + map;
    for (int row = threadIdx.x / COLUMNS; row < rows && m < MAPS; row += THREADS / COLUMNS) {
        int q = row0 + row, image = q / (POOLED_HEIGHT * POOLED_WIDTH), inside = q % (POOLED_HEIGHT * POOLED_WIDTH);
        int top = inside / POOLED_WIDTH * 2 - 1, left = inside % POOLED_WIDTH * 2 - 1;
        float best = -INFINITE;
        unsigned char taken = NONE;
        for (int place = 0; place < 9; ++place) {
            int y = top + place / 3, x = left + place % 3;
            if (y < 0 || y >= CONVOLVED_HEIGHT || x < 0 || x >= CONVOLVED_WIDTH) continue;
            size_t p = ((size_t)image * CONVOLVED_HEIGHT + y) * CONVOLVED_WIDTH + x;
            float z = fmaf(convolved[p * MAPS + m], scale[m], shift[m]);
            // A NaN is taken, and stays.
            if (z > best || z != z) best = z, taken = place;
        }
        choice[(size_t)q * MAPS + m] = best > 0.0f ? taken : NONE;
        stage.value[row][map] = out[(size_t)q * stride + m] = relu(best);
    }
    __syncthreads();
    if (training) stage.moments(rows, min(COLUMNS, MAPS - map0), MAPS, map0, partial);
}

// The sums for gamma and beta. Grid: tiles of pixels, tiles of maps.
// At least two blocks a multiprocessor: left to itself ptxas spills to fit more.
extern "C" __global__ void __launch_bounds__(THREADS, 2) stem_sums(
    const grad_t *dout, const unsigned char *choice, const store_t *convolved, const float *scale, const float *shift,
    const float *mean, float *partial, int pixels) {
    __shared__ Stage<ROWS, COLUMNS> stage;
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS;
    Gradient gradient = {dout, choice, convolved, nullptr, pixels, 0};
    pull(stage, Norm{scale, shift, mean}, convolved, MAPS, map0, min(COLUMNS, MAPS - map0), MAPS, partial,
         [&](int row) -> long { return row0 + row < pixels ? row0 + row : -1; },
         [&](int row, int column) {
             Values d;
             for (int i = 0; i < VECTOR; ++i) d[i] = gradient.behind(row0 + row, map0 + column + i);
             return d;
         },
         [](long, int, Values) {});
}
