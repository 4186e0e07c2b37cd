// The 1x1 convolution of a dense layer. BN and ReLU are applied as the operand is loaded,
// statistics are measured as the result is written.
//
//     out[p][n] = sum over channels c of relu(scale[c] * input[p][c] + shift[c]) * w[n][c]
//
// `input` is a prefix of a block's buffer, pixels x IN_STRIDE. The number of channels that are read
// grows from layer to layer, so it is an argument: one program serves all layers of a block. The
// weight is packed: maps x channels, in the type that operands are stored as.
//
// P pixels, C channels, N = MAPS: 2 P C N operations. P C values are read once for each tile of
// COLUMNS maps, P N are written. BN and ReLU of the operand are never stored.

// relu(scale * input + shift): lines are pixels, elements channels. Beyond the last pixel, that
// pixel is loaded again, and its sums are not written; beyond the last channel, that channel is,
// and its weight is 0.
struct Normalised {
    static constexpr bool ALONG_DEPTH = true, PLAIN = false;
    static constexpr int SPAN = VECTOR;
    typedef const store_t *Place;
    typedef Pack Fetched;
    const store_t *input;
    const float *scale, *shift;
    int channels, pixels, first_pixel;
    __device__ __forceinline__ Place place(int line) const { return input + (size_t)min(first_pixel + line, pixels - 1) * IN_STRIDE; }
    __device__ __forceinline__ Fetched fetch(Place pixel, int c) const { return pack_at(pixel + min(c, channels - VECTOR)); }
    __device__ __forceinline__ Pack made(const Fetched &x, int element) const {
        int c = min(element, channels - VECTOR);
        Values values, s = floats_at(scale + c), t = floats_at(shift + c);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) values[i] = fmaf(x[i], s[i], t[i]);
        return Pack::of<true>(values);
    }
};

// The packed weight: lines are maps, elements channels. Beyond the last map, that map is loaded
// again.
struct Weight {
    static constexpr bool ALONG_DEPTH = true, PLAIN = true;
    static constexpr int SPAN = VECTOR;
    typedef const store_t *Place;
    typedef Nothing Fetched;
    const store_t *weight;
    int channels, first_map;
    __device__ __forceinline__ Place place(int line) const { return weight + (size_t)min(first_map + line, MAPS - 1) * channels; }
    __device__ __forceinline__ const store_t *at(Place map, int c) const { return c < channels ? map + c : nullptr; }
    __device__ __forceinline__ const store_t *any() const { return weight; }
};

// Grid: tiles of pixels, tiles of maps.
extern "C" __global__ void __launch_bounds__(THREADS) pointwise_forward(
    const store_t *input, const float *scale, const float *shift, const store_t *weight, store_t *out, float *partial,
    const Scalars *scalars, int site, int pixels, int channels, int training) {
    __shared__ union {
        Pieces<ROWS, COLUMNS, Normalised, Weight> pieces;
        Stage<ROWS, COLUMNS> stage;
    } shared;
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS, rows = min(ROWS, pixels - row0), count = min(COLUMNS, MAPS - map0);
    Sums<ROWS, COLUMNS> sums;
    product(shared.pieces, sums, 0, channels, Normalised{input, scale, shift, channels, pixels, row0}, Weight{weight, channels, map0});
    sums.stage(shared.stage);
    __syncthreads();
    size_t first = (size_t)row0 * MAPS + map0;
    write(shared.stage, rows, count, out + first, MAPS, Dropout(scalars, site), first, MAPS);
    if (training) shared.stage.moments(rows, count, MAPS, map0, blockIdx.x, partial);
}

// The backward pass, in one kernel: the input, the wide end of a block, is passed once.
//
//     d[p][c] = sum over n of dout[p][n] w[n][c], masked by ReLU; into[p][c] += gamma[c] d[p][c]
//     share[n][c] = sum over p of dout[p][n] relu(scale[c] input[p][c] + shift[c])
//
// 4 P C N operations. Reads `input`, `into` and `dout` (once for each tile of channels, mostly from
// cache), writes `into`: 3 P C + P N values. A launch computes GROUP maps, from `map0` on: their
// part of the weight stays in shared memory. All results are sums over maps, so if there are more
// maps, launches for the other groups follow.

struct Back {
    store_t weight[GROUP][TILE_CHANNELS + PAD];
    // One tile of dout is in use while the next is loaded, if two fit.
    store_t dout[TILES][ROWS][GROUP + PAD];
    store_t operand[ROWS][TILE_CHANNELS + PAD];
    Stage<ROWS, TILE_CHANNELS> stage;
    float scale[TILE_CHANNELS], shift[TILE_CHANNELS], mean[TILE_CHANNELS], gamma[TILE_CHANNELS];
};
static_assert(sizeof(Back) <= POINTWISE_BACK_SHARED, "the host knows how much shared memory there has to be");

// Calls `what` for each vector of LINES lines of WIDE elements; the threads take adjacent vectors.
template <int LINES, int WIDE, class What> __device__ __forceinline__ void each_vector(What what) {
    constexpr int GROUPS = WIDE / VECTOR;
#pragma unroll 4
    for (int i = threadIdx.x; i < LINES * GROUPS; i += THREADS) what(i / GROUPS, i % GROUPS * VECTOR);
}

// Each slice of pixels writes a share of the weight's gradient, slices x weight, in the weight's
// order, and of the sums for gamma and beta: partial[slice][channel][2]. Grid: tiles of channels,
// slices of `length` pixels. Sums of many maps need the registers of a whole multiprocessor.
extern "C" __global__ void __launch_bounds__(THREADS, GROUP > 128 ? 1 : 2) pointwise_back(
    const grad_t *dout, const store_t *weight, const store_t *input, const float *scale, const float *shift, const float *mean,
    const float *gamma, grad_t *into, float *partial, float *share, int map0, int pixels, int channels, int length) {
    DYNAMIC_SHARED(memory);
    Back &shared = *reinterpret_cast<Back *>(memory);
    typedef Stage<ROWS, TILE_CHANNELS> Tile;
    constexpr int OWN = ROWS / Tile::ACROSS;
    int channel0 = blockIdx.x * TILE_CHANNELS, slice = blockIdx.y, maps = MAPS <= GROUP ? MAPS : min(GROUP, MAPS - map0);
    int first = slice * length, last = min(first + length, pixels);
    int column = shared.stage.own_column(), c = channel0 + column, count = min(TILE_CHANNELS, channels - channel0);

    auto bring = [&](int row0) {
        auto &tile = shared.dout[(row0 - first) / ROWS % TILES];
        each_vector<ROWS, GROUP>([&](int row, int n) {
            bool there = row0 + row < last && n < maps;
            copy_async(&tile[row][n], there ? dout + (size_t)(row0 + row) * MAPS + map0 + n : nullptr, dout);
        });
    };
    bring(first);
    each_vector<GROUP, TILE_CHANNELS>([&](int n, int element) {
        bool there = n < maps && element < count;
        copy_async(&shared.weight[n][element], there ? weight + (size_t)(map0 + n) * channels + channel0 + element : nullptr, weight);
    });
    for (int i = threadIdx.x; i < TILE_CHANNELS; i += THREADS) {
        bool there = i < count;
        shared.scale[i] = there ? scale[channel0 + i] : 0.0f, shared.shift[i] = there ? shift[channel0 + i] : 0.0f;
        shared.mean[i] = there ? mean[channel0 + i] : 0.0f, shared.gamma[i] = there ? gamma[channel0 + i] : 0.0f;
    }
    Masked masked;
    Sums<GROUP, TILE_CHANNELS> gradient;
    for (int row0 = first; row0 < last; row0 += ROWS) {
        copies_done();
        __syncthreads();
        if (TILES > 1 && row0 + ROWS < last) bring(row0 + ROWS);
        auto &tile = shared.dout[(row0 - first) / ROWS % TILES];
        // These are loaded now and used after the product. If there is no pixel, dout is 0, and so
        // is its product; the product of a channel that does not exist is not written.
        Pack x[OWN], g[OWN];
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            int row = shared.stage.own_row() + i * Tile::ACROSS;
            bool there = row0 + row < last && column < count;
            size_t at = (size_t)(row0 + row) * IN_STRIDE + c;
            x[i] = there ? pack_at(input + at) : Pack::zeros();
            g[i] = there ? pack_at(into + at) : Pack::zeros();
        }
        Sums<ROWS, TILE_CHANNELS> pulled;
        pulled.template add<true, false>(
            GROUP, [&](int row) { return tile[row]; }, [&](int n) { return shared.weight[n]; });
        pulled.stage(shared.stage);
        __syncthreads();
        Norm own = {shared.scale, shared.shift, shared.mean};
        Affine affine = Affine::of(own, column);
        Values factor = floats_at(shared.gamma + column);
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            int row = shared.stage.own_row() + i * Tile::ACROSS;
            bool there = row0 + row < last && column < count;
            Values z, d = floats_at(&shared.stage.value[row][column]);
#pragma unroll
            for (int j = 0; j < VECTOR; ++j) {
                z[j] = fmaf(x[i][j], affine.scale[j], affine.shift[j]);
                d[j] = fmaf(factor[j], masked.add(j, z[j], d[j], x[i][j] - affine.mean[j]), g[i][j]);
            }
            put_pack(&shared.operand[row][column], Pack::of<true>(z));
            if (there) put_pack(into + (size_t)(row0 + row) * IN_STRIDE + c, Pack::of<false>(d));
        }
        __syncthreads();
        gradient.template add<false, false>(
            ROWS, [&](int row) { return tile[row]; }, [&](int row) { return shared.operand[row]; });
        // The only tile of dout is not read any more.
        if (TILES == 1) {
            __syncthreads();
            if (row0 + ROWS < last) bring(row0 + ROWS);
        }
    }
    masked.put(shared.stage, count, channel0, channels, slice, partial);
#pragma unroll
    for (int i = 0; i < gradient.COUNT; ++i) {
        int n = gradient.row(i), k = gradient.column(i);
        if (n < maps && k < count) share[((size_t)slice * MAPS + map0 + n) * channels + channel0 + k] = gradient.value[i];
    }
}
