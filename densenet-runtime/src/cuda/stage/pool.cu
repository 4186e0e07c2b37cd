// The ImageNet stem's BN, ReLU and max pool, and the sums of their backward pass. It follows
// stem.cu, which has the formula and the backward pass itself.
//
// Forward: reads each convolved value up to 2.25 times (mostly from cache), and writes a value and
// a byte for every fourth. Sums: reads each convolved value, and up to four choices, once.

// `out` is the first block's buffer. Grid: tiles of pooled pixels, tiles of maps.
extern "C" __global__ void __launch_bounds__(THREADS) stem_pool(
    const store_t *convolved, const float *scale, const float *shift, store_t *out, unsigned char *choice, float *partial,
    int stride, int pooled, int training) {
    __shared__ Stage<ROWS, COLUMNS> stage;
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS, rows = min(ROWS, pooled - row0);
    int map = stage.own_column(), m = map0 + map;
    for (int row = stage.own_row(); row < rows && m < MAPS; row += stage.ACROSS) {
        int q = row0 + row, image = q / (POOLED_HEIGHT * POOLED_WIDTH), inside = q % (POOLED_HEIGHT * POOLED_WIDTH);
        int top = inside / POOLED_WIDTH * 2 - 1, left = inside % POOLED_WIDTH * 2 - 1;
        Values best, s = floats_at(scale + m), t = floats_at(shift + m);
        unsigned taken[VECTOR];
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) best[i] = -INFINITE, taken[i] = NONE;
        for (int place = 0; place < 9; ++place) {
            int y = top + place / 3, x = left + place % 3;
            if (y < 0 || y >= CONVOLVED_HEIGHT || x < 0 || x >= CONVOLVED_WIDTH) continue;
            size_t p = ((size_t)image * CONVOLVED_HEIGHT + y) * CONVOLVED_WIDTH + x;
            Pack own = pack_at(convolved + p * MAPS + m);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) {
                float z = fmaf(own[i], s[i], t[i]);
                // A NaN is chosen, and stays.
                if (z > best[i] || z != z) best[i] = z, taken[i] = place;
            }
        }
        Choices choices;
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) choices.put(i, best[i] > 0.0f ? taken[i] : NONE);
        *reinterpret_cast<Choices *>(ALIGNED(choice + (size_t)q * MAPS + m, VECTOR)) = choices;
        // Statistics are those of the stored values.
        Pack pooled_maps = Pack::of<true>(best);
        put_pack(out + (size_t)q * stride + m, pooled_maps);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) best[i] = pooled_maps[i];
        put_floats(&stage.value[row][map], best);
    }
    __syncthreads();
    if (training) stage.moments(rows, min(COLUMNS, MAPS - map0), MAPS, map0, blockIdx.x, partial);
}

// The sums for gamma and beta. Grid: tiles of pixels, tiles of maps. At least two blocks run on a
// multiprocessor; by itself, ptxas spills registers to fit more.
extern "C" __global__ void __launch_bounds__(THREADS, 2) stem_sums(
    const grad_t *dout, const unsigned char *choice, const store_t *convolved, const float *scale, const float *shift,
    const float *mean, float *partial, int pixels) {
    __shared__ Stage<ROWS, COLUMNS> stage;
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS;
    Gradient gradient = {dout, choice, convolved, nullptr, pixels, 0};
    pull(stage, Norm{scale, shift, mean}, convolved, MAPS, map0, min(COLUMNS, MAPS - map0), MAPS, partial,
         [&](int row) -> long long { return row0 + row < pixels ? row0 + row : -1; },
         [&](int row, int column) { return gradient.masked(row0 + row, map0 + column); },
         [](long long, int, Values) {});
}
