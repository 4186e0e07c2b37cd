// A transition: BN, ReLU, 1x1 convolution, 2x2 average pool, on maps of HEIGHT x WIDTH.
//
//     out[q][n] = sum over c of w[n][c] * (1/4) * sum over the 4 pixels p under q of
//                 relu(scale[c] * in[p][c] + shift[c])
//
// The pool is linear and the convolution works on each pixel alone, so the two commute: the
// operand is pooled as it is loaded, and the product has a quarter of the rows. Only with
// dropout, which stands between the two, are they done in the paper's order: then a tile's rows
// are the pixels under the pooled ones, four side by side (GROUP = 4), and pooled when they are
// written. Reads the input once, writes Q N values.

constexpr int TALL = HEIGHT / 2, WIDE = WIDTH / 2;

// Corner 0 to 3 of pooled pixel q, as a pixel of the input.
__device__ __forceinline__ int corner_of(int q, int corner) {
    int image = q / (TALL * WIDE), inside = q % (TALL * WIDE);
    int y = inside / WIDE * 2 + corner / 2, x = inside % WIDE * 2 + corner % 2;
    return (image * HEIGHT + y) * WIDTH + x;
}

// Row r of a product: pooled pixel r, or corner r % 4 of pooled pixel r / 4.
template <int GROUP> struct Row {
    static __device__ int pooled(int r) { return r / GROUP; }
    static __device__ int corner(int r) { return corner_of(r / GROUP, r % GROUP); }
};

// The operand: lines are rows, elements channels. With `share` of each pixel.
template <int GROUP, bool ALONG> struct Pooled {
    static constexpr bool ALONG_DEPTH = ALONG;
    typedef int Place;
    const store_t *in;
    const float *scale, *shift;
    float share;
    int rows, first_row, first_channel;
    __device__ Place place(int line) const { return first_row + line; }
    __device__ float at(int p, int c) const { return relu(fmaf(in[(size_t)p * IN + c], scale[c], shift[c])); }
    __device__ float load(Place row, int, int element) const {
        int c = first_channel + element;
        if (row >= rows || c >= IN) return 0.0f;
        if (GROUP == 4) return share * at(Row<GROUP>::corner(row), c);
        return share * ((at(corner_of(row, 0), c) + at(corner_of(row, 1), c)) +
                        (at(corner_of(row, 2), c) + at(corner_of(row, 3), c)));
    }
};

// The output's gradient behind dropout: lines are rows, elements maps.
template <int GROUP, bool ALONG> struct Spread {
    static constexpr bool ALONG_DEPTH = ALONG;
    typedef int Place;
    const grad_t *dout;
    Dropout dropout;
    int rows, first_row, first_map;
    __device__ Place place(int line) const { return first_row + line; }
    __device__ float load(Place row, int, int element) const {
        int n = first_map + element;
        if (row >= rows || n >= OUT) return 0.0f;
        float d = dout[(size_t)Row<GROUP>::pooled(row) * OUT + n];
        return GROUP == 4 ? d * dropout.factor((size_t)Row<GROUP>::corner(row) * OUT + n) : d;
    }
};

// The weight, maps x channels: lines are maps, elements channels.
template <bool ALONG> struct Weight {
    static constexpr bool ALONG_DEPTH = ALONG;
    typedef int Place;
    const float *weight;
    int first_map, first_channel;
    __device__ Place place(int line) const { return first_map + line; }
    __device__ float load(Place n, int, int element) const {
        int c = first_channel + element;
        return n < OUT && c < IN ? weight[(size_t)n * IN + c] : 0.0f;
    }
};

template <int GROUP>
__device__ void forward(Tile &tile, Stage &stage, const store_t *in, const float *scale, const float *shift,
                        const float *weight, store_t *out, float *partial, const Scalars *scalars, int site, int pooled,
                        int training) {
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS;
    Sums sums;
    Pooled<GROUP, true> a = {in, scale, shift, GROUP == 4 ? 1.0f : 0.25f, pooled * GROUP, row0, 0};
    Weight<true> b = {weight, map0, 0};
    product(tile, sums, 1, 0, IN, a, b);
    sums.stage(stage);
    __syncthreads();
    Dropout dropout(scalars, site);
    int map = threadIdx.x % COLUMNS, n = map0 + map, rows = min(ROWS / GROUP, pooled - row0 / GROUP);
    constexpr int ACROSS = THREADS / COLUMNS, OWN = ROWS / GROUP / ACROSS;
    float values[OWN];
    // Unrolled, as below, so that the values are in registers.
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        int row = threadIdx.x / COLUMNS + i * ACROSS, q = row0 / GROUP + row;
        if (row >= rows) continue;
        float value = stage.value[row * GROUP][map];
        if (GROUP == 4) {
            value = 0.0f;
            for (int corner = 0; corner < 4; ++corner)
                value += 0.25f * stage.value[row * 4 + corner][map] *
                         (n < OUT ? dropout.factor((size_t)corner_of(q, corner) * OUT + n) : 0.0f);
        }
        values[i] = n < OUT ? (float)(out[(size_t)q * OUT_STRIDE + n] = value) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        int row = threadIdx.x / COLUMNS + i * ACROSS;
        if (row < rows) stage.value[row][map] = values[i];
    }
    __syncthreads();
    if (training) column_moments(stage, rows, min(COLUMNS, OUT - map0), OUT, map0, partial);
}

// Grid: tiles of rows, tiles of maps. `out` is the next block's buffer, its first columns.
extern "C" __global__ void __launch_bounds__(THREADS) transition_forward(
    const store_t *in, const float *scale, const float *shift, const float *weight, store_t *out, float *partial,
    const Scalars *scalars, int site, int pooled, int training) {
    __shared__ Tile tile;
    __shared__ Stage stage;
    forward<1>(tile, stage, in, scale, shift, weight, out, partial, scalars, site, pooled, training);
}
extern "C" __global__ void __launch_bounds__(THREADS) transition_forward_dropped(
    const store_t *in, const float *scale, const float *shift, const float *weight, store_t *out, float *partial,
    const Scalars *scalars, int site, int pooled, int training) {
    __shared__ Tile tile;
    __shared__ Stage stage;
    forward<4>(tile, stage, in, scale, shift, weight, out, partial, scalars, site, pooled, training);
}

// Sets `into` to gamma times the masked gradient: each of the four pixels has a quarter. What an
// odd side leaves out of the pool is left alone. Grid: tiles of rows, tiles of channels.
template <int GROUP>
__device__ void back(Tile &tile, Stage &stage, const grad_t *dout, const float *weight, const store_t *in,
                     const float *scale, const float *shift, const float *mean, const float *gamma, grad_t *into,
                     float *partial, const Scalars *scalars, int site, int pooled) {
    int row0 = blockIdx.x * ROWS, channel0 = blockIdx.y * COLUMNS, rows = pooled * GROUP;
    Sums sums;
    Spread<GROUP, true> a = {dout, Dropout(scalars, site), rows, row0, 0};
    Weight<false> b = {weight, 0, channel0};
    product(tile, sums, 1, 0, OUT, a, b);
    sums.stage(stage);
    __syncthreads();
    // With GROUP 1 a block does its tile four times, once for each corner.
    Masked masked;
    int column = threadIdx.x % COLUMNS, c = channel0 + column, count = min(COLUMNS, IN - channel0);
    for (int row = threadIdx.x / COLUMNS; row < ROWS && column < count && row0 + row < rows; row += THREADS / COLUMNS)
        for (int corner = 0; corner < 4 / GROUP; ++corner) {
            int p = GROUP == 4 ? Row<4>::corner(row0 + row) : corner_of(row0 + row, corner);
            float value = in[(size_t)p * IN + c], z = fmaf(value, scale[c], shift[c]);
            into[(size_t)p * IN + c] = gamma[c] * masked.add(z, 0.25f * stage.value[row][column], value - mean[c]);
        }
    masked.put(stage, count, c, IN, blockIdx.x, partial);
}
extern "C" __global__ void __launch_bounds__(THREADS) transition_pull(
    const grad_t *dout, const float *weight, const store_t *in, const float *scale, const float *shift, const float *mean,
    const float *gamma, grad_t *into, float *partial, const Scalars *scalars, int site, int pooled) {
    __shared__ Tile tile;
    __shared__ Stage stage;
    back<1>(tile, stage, dout, weight, in, scale, shift, mean, gamma, into, partial, scalars, site, pooled);
}
extern "C" __global__ void __launch_bounds__(THREADS) transition_pull_dropped(
    const grad_t *dout, const float *weight, const store_t *in, const float *scale, const float *shift, const float *mean,
    const float *gamma, grad_t *into, float *partial, const Scalars *scalars, int site, int pooled) {
    __shared__ Tile tile;
    __shared__ Stage stage;
    back<4>(tile, stage, dout, weight, in, scale, shift, mean, gamma, into, partial, scalars, site, pooled);
}

// The gradient of the weight, a share of each slice of `length` rows: slices x maps x channels.
// Grid: tiles of channels, tiles of maps, slices.
template <int GROUP>
__device__ void weight_share(Tile &tile, const grad_t *dout, const store_t *in, const float *scale, const float *shift,
                             float *share, const Scalars *scalars, int site, int pooled, int length) {
    int channel0 = blockIdx.x * COLUMNS, map0 = blockIdx.y * ROWS;
    int first = blockIdx.z * length, last = min(first + length, pooled * GROUP);
    Sums sums;
    Spread<GROUP, false> a = {dout, Dropout(scalars, site), last, 0, map0};
    Pooled<GROUP, false> b = {in, scale, shift, 0.25f, last, 0, channel0};
    product(tile, sums, 1, first, last, a, b);
    for (int i = 0; i < 16; ++i) {
        int n = map0 + Sums::row(i), c = channel0 + Sums::column(i);
        if (n < OUT && c < IN) share[((size_t)blockIdx.z * OUT + n) * IN + c] = sums.value[i];
    }
}
extern "C" __global__ void __launch_bounds__(THREADS) transition_weight(
    const grad_t *dout, const store_t *in, const float *scale, const float *shift, float *share, const Scalars *scalars,
    int site, int pooled, int length) {
    __shared__ Tile tile;
    weight_share<1>(tile, dout, in, scale, shift, share, scalars, site, pooled, length);
}
extern "C" __global__ void __launch_bounds__(THREADS) transition_weight_dropped(
    const grad_t *dout, const store_t *in, const float *scale, const float *shift, float *share, const Scalars *scalars,
    int site, int pooled, int length) {
    __shared__ Tile tile;
    weight_share<4>(tile, dout, in, scale, shift, share, scalars, site, pooled, length);
}
