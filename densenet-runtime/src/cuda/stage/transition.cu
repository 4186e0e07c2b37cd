// A transition: BN, ReLU, 1x1 convolution, 2x2 average pool, on maps of HEIGHT x WIDTH.
//
//     out[q][n] = sum over c of w[n][c] * (1/4) * sum over the 4 pixels p under q of
//                 relu(scale[c] * input[p][c] + shift[c])
//
// The pool is linear and the convolution works on each pixel alone, so they commute: the operand is
// pooled as it is loaded, and the product has a quarter of the rows. Only dropout, which comes
// between them, requires the paper's order: then a tile's rows are the pixels under the pooled
// ones, four adjacent rows each (GROUP = 4), and are pooled as they are written.
//
// The forward pass, and the gradient of the weight, read the input once for each tile of COLUMNS
// maps. The blocks that do this run at the same time, so that all but the first find it mostly in
// cache. But each makes the operand again, which is more work than its product. So with many tiles
// (POOLED) the operand is made once, by transition_pool, and kept for the backward pass; then it is
// what both read as their `input`. The backward pass reads the input and writes its gradient once.
// Q N values are written, or read.

constexpr int TALL = HEIGHT / 2, WIDE = WIDTH / 2;
// Tiles across a row, of maps and of channels. A block's number counts these first, then tiles of
// rows.
constexpr int MAP_TILES = (OUT + COLUMNS - 1) / COLUMNS, CHANNEL_TILES = (IN + COLUMNS - 1) / COLUMNS;

// Corner 0 to 3 of pooled pixel q, as a pixel of the input.
__device__ __forceinline__ int corner_of(int q, int corner) {
    int image = q / (TALL * WIDE), inside = q % (TALL * WIDE);
    int y = inside / WIDE * 2 + corner / 2, x = inside % WIDE * 2 + corner % 2;
    return (image * HEIGHT + y) * WIDTH + x;
}

// Row r of a product: pooled pixel r, from its first corner on, or corner r % 4 of pooled pixel r /
// 4.
template <int GROUP> struct Row {
    static __device__ int pooled(int r) { return r / GROUP; }
    static __device__ int corner(int r) { return corner_of(r / GROUP, r % GROUP); }
};

// The operand: lines are rows, elements channels. `share` is the weight of each pixel. Beyond the
// last row that row is loaded again, beyond the last channel that channel: the other factor is 0,
// or the sums are not written.
template <int GROUP, bool ALONG> struct Pooled {
    static constexpr bool ALONG_DEPTH = ALONG, PLAIN = false;
    static constexpr int SPAN = VECTOR, PIXELS = GROUP == 4 ? 1 : 4;
    typedef const store_t *Place;
    struct Fetched { Pack x[PIXELS]; };
    const store_t *input;
    const float *scale, *shift;
    float share;
    int rows, first_row, first_channel;
    __device__ __forceinline__ int channel(int element) const { return min(first_channel + element, IN - VECTOR); }
    __device__ __forceinline__ Place place(int line) const {
        int row = min(first_row + line, rows - 1);
        return input + (size_t)Row<GROUP>::corner(row) * IN;
    }
    __device__ __forceinline__ Fetched fetch(Place first, int element) const {
        int c = channel(element);
        Fetched fetched;
#pragma unroll
        for (int i = 0; i < PIXELS; ++i) fetched.x[i] = pack_at(first + (i / 2 * WIDTH + i % 2) * IN + c);
        return fetched;
    }
    __device__ __forceinline__ Pack made(const Fetched &fetched, int element) const {
        int c = channel(element);
        Values values, s = floats_at(scale + c), t = floats_at(shift + c);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) {
            auto at = [&](int pixel) { return relu(fmaf(fetched.x[pixel][i], s[i], t[i])); };
            values[i] = share * (PIXELS == 1 ? at(0) : (at(0) + at(1 % PIXELS)) + (at(2 % PIXELS) + at(3 % PIXELS)));
        }
        return Pack::of<false>(values);
    }
};

// Lines of IN channels that are copied as they are: the packed weight's maps, or the operand that was
// made before, pooled pixels.
template <bool ALONG> struct Matrix {
    static constexpr bool ALONG_DEPTH = ALONG, PLAIN = true;
    static constexpr int SPAN = VECTOR;
    typedef int Place;
    typedef Nothing Fetched;
    const store_t *values;
    int lines, first_line, first_channel;
    __device__ __forceinline__ Place place(int line) const { return first_line + line; }
    __device__ __forceinline__ const store_t *any() const { return values; }
    __device__ __forceinline__ const store_t *at(Place line, int element) const {
        int c = first_channel + element;
        return line < lines && c < IN ? values + (size_t)line * IN + c : nullptr;
    }
};

// The operand of a product, from `rows` rows of the input.
template <int GROUP, bool ALONG> struct From {
    typedef Pooled<GROUP, ALONG> Operand;
    static __device__ Operand of(const store_t *input, const float *scale, const float *shift, float share, int rows, int row, int channel) {
        return {input, scale, shift, share, rows, row, channel};
    }
};
#if POOLED
template <bool ALONG> struct From<1, ALONG> {
    typedef Matrix<ALONG> Operand;
    static __device__ Operand of(const store_t *input, const float *, const float *, float, int rows, int row, int channel) {
        return {input, rows, row, channel};
    }
};
#endif

// A thread for each vector of pooled pixels x channels.
extern "C" __global__ void __launch_bounds__(THREADS) transition_pool(
    const store_t *input, const float *scale, const float *shift, store_t *into, int pooled) {
    int i = blockIdx.x * THREADS + threadIdx.x, q = i / (IN / VECTOR), c = i % (IN / VECTOR) * VECTOR;
    if (q >= pooled) return;
    Pooled<1, true> operand = {input, scale, shift, 0.25f, pooled, 0, 0};
    put_pack(into + (size_t)q * IN + c, operand.made(operand.fetch(operand.place(q), c), c));
}

// The output's gradient after dropout: lines are rows, elements maps.
template <int GROUP, bool ALONG> struct Spread {
    static constexpr bool ALONG_DEPTH = ALONG, PLAIN = GROUP == 1;
    static constexpr int SPAN = VECTOR;
    typedef int Place;
    struct Fetched { Pack d; int row; bool there; };
    const grad_t *dout;
    Dropout dropout;
    int rows, first_row, first_map;
    __device__ __forceinline__ Place place(int line) const { return first_row + line; }
    __device__ __forceinline__ const grad_t *any() const { return dout; }
    __device__ __forceinline__ const grad_t *at(Place row, int element) const {
        int n = first_map + element;
        return row < rows && n < OUT ? dout + (size_t)Row<GROUP>::pooled(row) * OUT + n : nullptr;
    }
    __device__ __forceinline__ Fetched fetch(Place row, int element) const {
        const grad_t *from = at(row, element);
        return {from ? pack_at(from) : Pack::zeros(), row, from != nullptr};
    }
    __device__ __forceinline__ Pack made(const Fetched &fetched, int element) const {
        Values values = {};
        size_t number = fetched.there ? (size_t)Row<GROUP>::corner(fetched.row) * OUT + first_map + element : 0;
#pragma unroll
        for (int i = 0; i < VECTOR; ++i)
            if (fetched.there) values[i] = fetched.d[i] * dropout.factor(number + i);
        return Pack::of<false>(values);
    }
};

// What the kernels share. `shared` is that of the block.
template <class A, class B> union Shared {
    Pieces<ROWS, COLUMNS, A, B> pieces;
    Stage<ROWS, COLUMNS> stage;
};

template <int GROUP>
__device__ __forceinline__ void forward(const store_t *input, const float *scale, const float *shift, const store_t *weight,
                                        store_t *out, float *partial, const Scalars *scalars, int site, int pooled,
                                        int training) {
    __shared__ Shared<typename From<GROUP, true>::Operand, Matrix<true>> shared;
    typedef Stage<ROWS, COLUMNS> Tile;
    Tile &stage = shared.stage;
    int tile = blockIdx.x / MAP_TILES, row0 = tile * ROWS;
    int map0 = blockIdx.x % MAP_TILES * COLUMNS, count = min(COLUMNS, OUT - map0);
    Sums<ROWS, COLUMNS> sums;
    auto a = From<GROUP, true>::of(input, scale, shift, GROUP == 4 ? 1.0f : 0.25f, pooled * GROUP, row0, 0);
    product(shared.pieces, sums, 0, IN, a, Matrix<true>{weight, OUT, map0, 0});
    sums.stage(stage);
    __syncthreads();
    Dropout dropout(scalars, site);
    int column = stage.own_column(), n = map0 + column, rows = min(ROWS / GROUP, pooled - row0 / GROUP);
    if (GROUP == 4) {
        // The mean of the corners, written where the first corner was.
        for (int row = stage.own_row(); row < rows && column < count; row += stage.ACROSS) {
            Values mean = {};
            for (int corner = 0; corner < 4; ++corner) {
                size_t number = (size_t)corner_of(row0 / GROUP + row, corner) * OUT + n;
                Values value = floats_at(&stage.value[row * 4 + corner][column]);
#pragma unroll
                for (int i = 0; i < VECTOR; ++i) mean[i] += 0.25f * value[i] * dropout.factor(number + i);
            }
            put_floats(&stage.value[row * 4][column], mean);
        }
        // Each thread reads and writes its own rows, but moves them to where other threads had
        // theirs.
        constexpr int OWN = (ROWS / GROUP + Tile::ACROSS - 1) / Tile::ACROSS;
        Values moved[OWN];
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            int row = stage.own_row() + i * stage.ACROSS;
            if (row < rows) moved[i] = floats_at(&stage.value[row * 4][column]);
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            int row = stage.own_row() + i * stage.ACROSS;
            if (row < rows) put_floats(&stage.value[row][column], moved[i]);
        }
        __syncthreads();
    }
    // Dropout is already done.
    write(stage, rows, count, out + (size_t)(row0 / GROUP) * OUT_STRIDE + map0, OUT_STRIDE, Dropout(scalars, -1), 0, 0);
    if (training) stage.moments(rows, count, OUT, map0, tile, partial);
}

// Grid: tiles of rows x tiles of maps. `out` is the next block's buffer, its first columns.
extern "C" __global__ void __launch_bounds__(THREADS) transition_forward(
    const store_t *input, const float *scale, const float *shift, const store_t *weight, store_t *out, float *partial,
    const Scalars *scalars, int site, int pooled, int training) {
    forward<1>(input, scale, shift, weight, out, partial, scalars, site, pooled, training);
}
extern "C" __global__ void __launch_bounds__(THREADS) transition_forward_dropped(
    const store_t *input, const float *scale, const float *shift, const store_t *weight, store_t *out, float *partial,
    const Scalars *scalars, int site, int pooled, int training) {
    forward<4>(input, scale, shift, weight, out, partial, scalars, site, pooled, training);
}

// Sets `into` to gamma times the masked gradient; each of the four pixels receives a quarter.
// Pixels of an odd side that the pool leaves out are not written. Grid: tiles of rows x tiles of
// channels.
template <int GROUP>
__device__ __forceinline__ void back(const grad_t *dout, const store_t *weight, const store_t *input, const float *scale,
                                     const float *shift, const float *mean, const float *gamma, grad_t *into,
                                     float *partial, const Scalars *scalars, int site, int pooled) {
    __shared__ Shared<Spread<GROUP, true>, Matrix<false>> shared;
    auto &stage = shared.stage;
    int tile = blockIdx.x / CHANNEL_TILES, row0 = tile * ROWS, rows = pooled * GROUP;
    int channel0 = blockIdx.x % CHANNEL_TILES * COLUMNS, count = min(COLUMNS, IN - channel0);
    Sums<ROWS, COLUMNS> sums;
    Spread<GROUP, true> a = {dout, Dropout(scalars, site), rows, row0, 0};
    product(shared.pieces, sums, 0, OUT, a, Matrix<false>{weight, OUT, 0, channel0});
    sums.stage(stage);
    __syncthreads();
    // With GROUP 1 a block computes its tile four times, once for each corner.
    Masked masked;
    int column = stage.own_column(), c = channel0 + column;
    if (column < count) {
        Affine affine = Affine::of(Norm{scale, shift, mean}, c);
        Values factor = parameters_at(gamma + c);
        for (int row = stage.own_row(); row < ROWS && row0 + row < rows; row += stage.ACROSS) {
            Values d = floats_at(&stage.value[row][column]);
#pragma unroll
            for (int corner = 0; corner < 4 / GROUP; ++corner) {
                int p = GROUP == 4 ? Row<4>::corner(row0 + row) : corner_of(row0 + row, corner);
                Pack x = pack_at(input + (size_t)p * IN + c);
                Values own;
#pragma unroll
                for (int i = 0; i < VECTOR; ++i) {
                    float z = fmaf(x[i], affine.scale[i], affine.shift[i]);
                    own[i] = factor[i] * masked.add(i, z, 0.25f * d[i], x[i] - affine.mean[i]);
                }
                put_pack(into + (size_t)p * IN + c, Pack::of<false>(own));
            }
        }
    }
    __syncthreads();
    masked.put(stage, count, channel0, IN, tile, partial);
}
extern "C" __global__ void __launch_bounds__(THREADS) transition_pull(
    const grad_t *dout, const store_t *weight, const store_t *input, const float *scale, const float *shift, const float *mean,
    const float *gamma, grad_t *into, float *partial, const Scalars *scalars, int site, int pooled) {
    back<1>(dout, weight, input, scale, shift, mean, gamma, into, partial, scalars, site, pooled);
}
extern "C" __global__ void __launch_bounds__(THREADS) transition_pull_dropped(
    const grad_t *dout, const store_t *weight, const store_t *input, const float *scale, const float *shift, const float *mean,
    const float *gamma, grad_t *into, float *partial, const Scalars *scalars, int site, int pooled) {
    back<4>(dout, weight, input, scale, shift, mean, gamma, into, partial, scalars, site, pooled);
}

// The gradient of the weight, a share for each slice of `length` rows: slices x maps x channels.
// Grid: tiles of maps, tiles of channels, slices. In bf16 three blocks share a multiprocessor,
// which ptxas does not achieve by itself.
template <int GROUP>
__device__ __forceinline__ void weight_share(const grad_t *dout, const store_t *input, const float *scale, const float *shift,
                                             float *share, const Scalars *scalars, int site, int pooled, int length) {
    __shared__ Pieces<COLUMNS, TILE_CHANNELS, Spread<GROUP, false>, typename From<GROUP, false>::Operand> pieces;
    int map0 = blockIdx.x * COLUMNS, channel0 = blockIdx.y * TILE_CHANNELS;
    int first = blockIdx.z * length, last = min(first + length, pooled * GROUP);
    Sums<COLUMNS, TILE_CHANNELS> sums;
    Spread<GROUP, false> a = {dout, Dropout(scalars, site), last, 0, map0};
    product(pieces, sums, first, last, a, From<GROUP, false>::of(input, scale, shift, 0.25f, last, 0, channel0));
#pragma unroll
    for (int i = 0; i < sums.COUNT; ++i) {
        int n = map0 + sums.row(i), c = channel0 + sums.column(i);
        if (n < OUT && c < IN) share[((size_t)blockIdx.z * OUT + n) * IN + c] = sums.value[i];
    }
}
extern "C" __global__ void __launch_bounds__(THREADS, BF16 ? 3 : 2) transition_weight(
    const grad_t *dout, const store_t *input, const float *scale, const float *shift, float *share, const Scalars *scalars,
    int site, int pooled, int length) {
    weight_share<1>(dout, input, scale, shift, share, scalars, site, pooled, length);
}
extern "C" __global__ void __launch_bounds__(THREADS) transition_weight_dropped(
    const grad_t *dout, const store_t *input, const float *scale, const float *shift, float *share, const Scalars *scalars,
    int site, int pooled, int length) {
    weight_share<4>(dout, input, scale, shift, share, scalars, site, pooled, length);
}
