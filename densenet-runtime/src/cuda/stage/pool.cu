// The ImageNet stem's BN, ReLU and max pool, and the sums of their backward pass. It follows
// stem.cu, which has the formula and the backward pass itself.
//
// Both read each convolved value up to 2.25 times (mostly from cache). Forward: writes a value and a
// byte for every fourth. Sums: reads these again.

// Loads the nine pixels under a pooled one; zeros instead of what lies outside the maps. `inside`
// has a bit for each.
struct Window {
    Pack x[9];
    unsigned inside = 0;
    __device__ __forceinline__ Window(const store_t *convolved, int q, int m) {
        int image = q / (POOLED_HEIGHT * POOLED_WIDTH), within = q % (POOLED_HEIGHT * POOLED_WIDTH);
        int top = within / POOLED_WIDTH * 2 - 1, left = within % POOLED_WIDTH * 2 - 1;
        const store_t *first = convolved + (((long long)image * CONVOLVED_HEIGHT + top) * CONVOLVED_WIDTH + left) * MAPS + m;
#pragma unroll
        for (int place = 0; place < 9; ++place) {
            int y = top + place / 3, x_at = left + place % 3;
            bool there = y >= 0 && y < CONVOLVED_HEIGHT && x_at >= 0 && x_at < CONVOLVED_WIDTH;
            x[place] = there ? pack_at(first + (place / 3 * CONVOLVED_WIDTH + place % 3) * MAPS) : Pack::zeros();
            inside |= there << place;
        }
    }
};

// `out` is the first block's buffer. Grid: tiles of pooled pixels, tiles of maps.
extern "C" __global__ void __launch_bounds__(THREADS) stem_pool(
    const store_t *convolved, const float *scale, const float *shift, store_t *out, unsigned char *choice, float *partial,
    int stride, int pooled, int training) {
    __shared__ Stage<ROWS, COLUMNS> stage;
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS, rows = min(ROWS, pooled - row0);
    int map = stage.own_column(), m = map0 + map;
    for (int row = stage.own_row(); row < rows && m < MAPS; row += stage.ACROSS) {
        int q = row0 + row;
        Window window(convolved, q, m);
        Values best, s = floats_at(scale + m), t = floats_at(shift + m);
        unsigned taken[VECTOR];
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) best[i] = -INFINITE, taken[i] = NONE;
#pragma unroll
        for (int place = 0; place < 9; ++place) {
            if (!(window.inside >> place & 1)) continue;
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) {
                float z = fmaf(window.x[place][i], s[i], t[i]);
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

// The sums for gamma and beta. What the ReLU cut off was not chosen. Grid: tiles of pooled pixels,
// tiles of maps.
extern "C" __global__ void __launch_bounds__(THREADS) stem_sums(
    const grad_t *dout, const unsigned char *choice, const store_t *convolved, const float *mean, float *partial, int pooled) {
    __shared__ Stage<ROWS, COLUMNS> stage;
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS, m = map0 + stage.own_column();
    Masked own;
    for (int q = row0 + stage.own_row(); q < min(row0 + ROWS, pooled) && m < MAPS; q += stage.ACROSS) {
        Window window(convolved, q, m);
        Choices choices = choices_at(choice + (size_t)q * MAPS + m);
        Pack d = choices.select(NONE, Pack::zeros(), pack_at(dout + (size_t)q * MAPS + m)), x = Pack::zeros();
#pragma unroll
        for (int place = 0; place < 9; ++place) x = choices.select(place, window.x[place], x);
        Values means = floats_at(mean + m);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) own.add(i, 1.0f, d[i], x[i] - means[i]);
    }
    own.put(stage, min(COLUMNS, MAPS - map0), map0, MAPS, blockIdx.x, partial);
}
