// The 3x3 convolution of a dense layer, stride 1, zeros around, on maps of HEIGHT x WIDTH: forward,
// and the backward pass in two kernels. BN and ReLU are applied as the operand is loaded.
//
//     out[p][n] = sum over taps t, channels c of relu(scale[c] * input[p + t][c] + shift[c]) * w[n][c][t]
//
// `input` is bottleneck maps, or a prefix of a block's buffer: pixels x IN_STRIDE. `out` is pixels
// x OUT_STRIDE, columns from `column` on. The weight is packed: taps x maps x channels, in the type
// that operands are stored as.
//
// P pixels, C channels, N = MAPS: 18 P C N operations for each kernel. A block stages the pixels of
// its tile and those around it once for all taps, some channels at a time: STAGED / ROWS times P C
// values are read and normalised, not 9 times. A tap of a pixel is another line of the staged
// pixels.

// The lines above a pixel's line, and the distance to the line below. If the image is wide, not all
// pixels between are staged, but a line of the tile, the one above it and the one below.
constexpr int AREA = HEIGHT * WIDTH, TAPS = 9, LIFT = WIDTH < ROWS + 2 ? WIDTH : ROWS + 2, STAGED = ROWS + 2 * LIFT + 2;

// The pixel that is staged in `line`, if the tile starts with pixel `first`.
__device__ __forceinline__ int staged_pixel(int line, int first) {
    if (LIFT == WIDTH) return first + line - WIDTH - 1;
    return first + (line / LIFT - 1) * WIDTH + line % LIFT - 1;
}

// Which taps of a pixel are inside the image, a bit for each. A pixel that does not exist has none.
__device__ __forceinline__ unsigned inside(int p, int end) {
    if (p >= end) return 0;
    int y = p % AREA / WIDTH, x = p % WIDTH;
    unsigned columns = (x > 0 ? 1 : 0) | 2 | (x < WIDTH - 1 ? 4 : 0);
    return (y > 0 ? columns : 0) | columns << 3 | (y < HEIGHT - 1 ? columns << 6 : 0);
}

// The pixels of a tile and those around it, or LINES of their lines from `base` on: lines of WIDE
// values, and one of zeros.
template <int WIDE, int LINES> struct Halo {
    alignas(16) store_t value[LINES + 1][WIDE + PAD];
    unsigned short taps[ROWS];

    __device__ __forceinline__ void start(int first, int end) {
        static_assert(WIDE <= THREADS && ROWS <= THREADS, "each has one thread");
        if (threadIdx.x < WIDE / VECTOR) put_pack(&value[LINES][threadIdx.x * VECTOR], Pack::zeros());
        if (threadIdx.x < ROWS) taps[threadIdx.x] = inside(first + threadIdx.x, end);
    }
    // The line of tile row `row` under a tap.
    __device__ __forceinline__ const store_t *under(int row, int tap, int base) const {
        return value[taps[row] >> tap & 1 ? row + tap / 3 * LIFT + tap % 3 - base : LINES];
    }
    // Fills all lines. The values of a line are used after all loads of a batch have started. A
    // line may have no pixel; then no tap inside an image reads it, and it gets the values of any
    // pixel.
    template <class Fetch, class Make> __device__ __forceinline__ void fill(int base, int first, int pixels, Fetch fetch, Make make) {
        constexpr int GROUPS = WIDE / VECTOR, PASSES = (LINES * GROUPS + THREADS - 1) / THREADS, BATCHES = (PASSES + 4) / 5;
        constexpr int BATCH = (PASSES + BATCHES - 1) / BATCHES;
        int element = threadIdx.x % GROUPS * VECTOR;
        for (int line0 = threadIdx.x / GROUPS; line0 < LINES; line0 += BATCH * (THREADS / GROUPS)) {
            Pack fetched[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                int line = min(line0 + i * (THREADS / GROUPS), LINES - 1);
                fetched[i] = fetch(min(max(staged_pixel(base + line, first), 0), pixels - 1));
            }
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                int line = line0 + i * (THREADS / GROUPS);
                if (line < LINES) put_pack(&value[line][element], make(fetched[i]));
            }
        }
    }
};

// relu(scale * input + shift) of `WIDE` channels from `first_channel` on.
template <int WIDE, int LINES>
__device__ __forceinline__ void stage_normalised(Halo<WIDE, LINES> &halo, int base, int first, const store_t *input, const float *scale,
                                                 const float *shift, int first_channel, int channels, int pixels) {
    // A thread's channels are the same in all lines. Beyond the last channels these are loaded
    // again: their weight is 0, or their sums are not written.
    int c = min(first_channel + (int)threadIdx.x % (WIDE / VECTOR) * VECTOR, channels - VECTOR);
    Values s = floats_at(scale + c), t = floats_at(shift + c);
    input += c;
    halo.fill(
        base, first, pixels, [&](int p) { return pack_at(input + (size_t)p * IN_STRIDE); },
        [&](const Pack &x) {
            Values values;
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) values[i] = fmaf(x[i], s[i], t[i]);
            return Pack::of<true>(values);
        });
}

// Copies LINES lines of WIDE elements, of the packed weight or of a gradient, to shared memory.
// `line(i)` is the start of line i, null if it does not exist; `count` of its elements exist.
template <int LINES, int WIDE, class Line>
__device__ __forceinline__ void bring(store_t (*into)[WIDE + PAD], int count, const store_t *any, Line line) {
    constexpr int GROUPS = WIDE / VECTOR, AT_ONCE = THREADS / GROUPS;
    int element = threadIdx.x % GROUPS * VECTOR;
#pragma unroll 3
    for (int from = 0; from < LINES; from += AT_ONCE) {
        int i = from + threadIdx.x / GROUPS;
        if (LINES % AT_ONCE && i >= LINES) continue;
        const store_t *at = line(i);
        copy_async(&into[i][element], at && element < count ? at + element : nullptr, any);
    }
}

union Forward {
    struct {
        Halo<DEPTH, STAGED> halo;
        store_t weight[TAPS * TILE_MAPS][DEPTH + PAD];
    };
    Stage<ROWS, TILE_MAPS> stage;
};
static_assert(sizeof(Forward) <= SPATIAL_FORWARD_SHARED, "the host knows how much shared memory there has to be");

// Grid: tiles of pixels, tiles of maps.
extern "C" __global__ void __launch_bounds__(THREADS, 2) spatial_forward(
    const store_t *input, const float *scale, const float *shift, const store_t *weight, store_t *out, float *partial,
    const Scalars *scalars, int column, int site, int pixels, int channels, int training) {
    DYNAMIC_SHARED(memory);
    Forward &shared = *reinterpret_cast<Forward *>(memory);
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * TILE_MAPS, rows = min(ROWS, pixels - row0), count = min(TILE_MAPS, MAPS - map0);
    Sums<ROWS, TILE_MAPS> sums;
    shared.halo.start(row0, pixels);
    for (int from = 0; from < channels; from += DEPTH) {
        bring<TAPS * TILE_MAPS, DEPTH>(shared.weight, channels - from, weight, [&](int i) {
            int n = map0 + i % TILE_MAPS;
            return n < MAPS ? weight + ((size_t)(i / TILE_MAPS) * MAPS + n) * channels + from : nullptr;
        });
        stage_normalised(shared.halo, 0, row0, input, scale, shift, from, channels, pixels);
        copies_done();
        __syncthreads();
#pragma unroll 1
        for (int tap = 0; tap < TAPS; ++tap)
            sums.template add<true, true>(
                DEPTH, [&](int row) { return shared.halo.under(row, tap, 0); },
                [&](int n) { return shared.weight[tap * TILE_MAPS + n]; });
        __syncthreads();
    }
    sums.stage(shared.stage);
    __syncthreads();
    size_t number = (size_t)row0 * MAPS + map0;
    write(shared.stage, rows, count, out + (size_t)row0 * OUT_STRIDE + column + map0, OUT_STRIDE, Dropout(scalars, site), number, MAPS);
    if (training) shared.stage.moments(rows, count, MAPS, map0, blockIdx.x, partial);
}

union Pull {
    struct {
        Halo<DEPTH, STAGED> halo;
        store_t weight[TAPS * DEPTH][TILE_CHANNELS + PAD];
    };
    Stage<ROWS, TILE_CHANNELS> stage;
};
static_assert(sizeof(Pull) <= SPATIAL_PULL_SHARED, "the host knows how much shared memory there has to be");

// The gradient of the input, through ReLU and the affine part of BN. If `gamma` is given, gamma
// times the gradient is added to `into` (pixels x IN_STRIDE). Otherwise the gradient is stored as
// it is, and the caller includes gamma when it undoes BN. A pixel collects the gradients of the
// pixels whose taps it was. Grid: tiles of pixels, tiles of channels.
extern "C" __global__ void __launch_bounds__(THREADS, 2) spatial_pull(
    const grad_t *dout, const store_t *weight, const store_t *input, const float *scale, const float *shift, const float *mean,
    const float *gamma, grad_t *into, float *partial, int add, int pixels, int channels) {
    DYNAMIC_SHARED(memory);
    Pull &shared = *reinterpret_cast<Pull *>(memory);
    int row0 = blockIdx.x * ROWS, channel0 = blockIdx.y * TILE_CHANNELS, count = min(TILE_CHANNELS, channels - channel0);
    Sums<ROWS, TILE_CHANNELS> sums;
    shared.halo.start(row0, pixels);
    for (int from = 0; from < MAPS; from += DEPTH) {
        bring<TAPS * DEPTH, TILE_CHANNELS>(shared.weight, count, weight, [&](int i) {
            int n = from + i % DEPTH;
            return n < MAPS ? weight + ((size_t)(i / DEPTH) * MAPS + n) * channels + channel0 : nullptr;
        });
        bring<STAGED, DEPTH>(shared.halo.value, MAPS - from, dout, [&](int line) {
            int p = staged_pixel(line, row0);
            return p >= 0 && p < pixels ? dout + (size_t)p * MAPS + from : nullptr;
        });
        copies_done();
        __syncthreads();
#pragma unroll 1
        for (int tap = 0; tap < TAPS; ++tap)
            sums.template add<true, false>(
                DEPTH, [&](int row) { return shared.halo.under(row, TAPS - 1 - tap, 0); },
                [&](int n) { return shared.weight[tap * DEPTH + n]; });
        __syncthreads();
    }
    sums.stage(shared.stage);
    __syncthreads();
    pull(shared.stage, Norm{scale, shift, mean}, input, IN_STRIDE, channel0, count, channels, partial,
         [&](int row) -> long long { return row0 + row < pixels ? row0 + row : -1; },
         [&](int row, int column) { return floats_at(&shared.stage.value[row][column]); },
         [&](long long p, int c, Values masked) {
             grad_t *at = into + p * IN_STRIDE + c;
             if (add) {
                 Pack before = pack_at(at);
                 Values factor = parameters_at(gamma + c);
#pragma unroll
                 for (int i = 0; i < VECTOR; ++i) masked[i] = fmaf(factor[i], masked[i], before[i]);
             }
             put_pack(at, Pack::of<false>(masked));
         });
}

// The taps of a block of the weight's gradient: those of one row.
constexpr int TAPS_AT_ONCE = TAPS / TAP_ROWS;

struct Share {
    Halo<TILE_CHANNELS, ROWS + 2> halo;
    alignas(16) store_t dout[ROWS][TILE_MAPS + PAD];
};
static_assert(sizeof(Share) <= SPATIAL_WEIGHT_SHARED, "the host knows how much shared memory there has to be");

// The gradient of the weight: each slice of pixels writes its own share, slices x maps x taps x
// channels, so that adjacent lanes write adjacent values; `gather` puts them in the weight's order.
// Grid: tiles of channels, tiles of maps x rows of taps, slices of `length` pixels.
extern "C" __global__ void __launch_bounds__(THREADS) spatial_weight(
    const grad_t *dout, const store_t *input, const float *scale, const float *shift, float *share, int pixels, int channels,
    int length) {
    DYNAMIC_SHARED(memory);
    Share &shared = *reinterpret_cast<Share *>(memory);
    int channel0 = blockIdx.x * TILE_CHANNELS, map0 = blockIdx.y / TAP_ROWS * TILE_MAPS, tap0 = blockIdx.y % TAP_ROWS * TAPS_AT_ONCE;
    int first = blockIdx.z * length, last = min(first + length, pixels);
    // The first of the lines that these taps read.
    int base = tap0 / 3 * LIFT;
    Sums<TILE_MAPS, TILE_CHANNELS> sums[TAPS_AT_ONCE];
    for (int row0 = first; row0 < last; row0 += ROWS) {
        // Gradients of the next slice do not belong to this one. Its pixels do, as taps.
        bring<ROWS, TILE_MAPS>(shared.dout, MAPS - map0, dout, [&](int row) {
            return row0 + row < last ? dout + (size_t)(row0 + row) * MAPS + map0 : nullptr;
        });
        shared.halo.start(row0, pixels);
        stage_normalised(shared.halo, base, row0, input, scale, shift, channel0, channels, pixels);
        copies_done();
        __syncthreads();
#pragma unroll 2
        for (int k = 0; k < ROWS; k += sums[0].AT_ONCE) {
            auto rows = sums[0].template rows<false>([&](int row) { return shared.dout[row]; }, k);
#pragma unroll
            for (int tap = 0; tap < TAPS_AT_ONCE; ++tap)
                sums[tap].template multiply<false>(rows, [&](int row) { return shared.halo.under(row, tap0 + tap, base); }, k);
        }
        __syncthreads();
    }
    share += (size_t)blockIdx.z * MAPS * channels * TAPS;
    // On the tensor cores a thread has adjacent columns, two by two.
    constexpr int PAIR = BF16 && VECTOR % 2 == 0 ? 2 : 1;
#pragma unroll
    for (int tap = 0; tap < TAPS_AT_ONCE; ++tap)
#pragma unroll
        for (int i = 0; i < sums[0].COUNT; i += PAIR) {
            int n = map0 + sums[0].row(i), c = channel0 + sums[0].column(i);
            if (n >= MAPS || c >= channels) continue;
            float *at = share + ((size_t)n * TAPS + tap0 + tap) * channels + c;
            if constexpr (PAIR == 2) *reinterpret_cast<float2 *>(ALIGNED(at, 8)) = {sums[tap].value[i], sums[tap].value[i + 1]};
            else *at = sums[tap].value[i];
        }
}
