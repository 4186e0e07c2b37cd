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
// its tile and those around it once for all taps, some channels at a time: LINES values are read and
// normalised for TILE pixels of a channel, not 9 TILE. A tap of a pixel is another line of the
// staged pixels.

constexpr int AREA = HEIGHT * WIDTH, TAPS = 9;

// The lines that are staged for a tile of TILE pixels. LIFT are above a pixel's line, as far as the
// line below. If the image is wide, not all pixels between are staged, but a line of the tile, the
// one above it and the one below.
template <int TILE> struct Around {
    static constexpr bool WHOLE = WIDTH <= TILE + 2;
    static constexpr int LIFT = WHOLE ? WIDTH : TILE + 2, LINES = TILE + 2 * LIFT + 2;
    // The pixel that is staged in `line`, if the tile starts with pixel `first`.
    __device__ __forceinline__ static int pixel(int line, int first) {
        if (WHOLE) return first + line - WIDTH - 1;
        return first + (line / LIFT - 1) * WIDTH + line % LIFT - 1;
    }
};
// Which taps of a pixel are inside the image, a bit for each. A pixel that does not exist has none.
__device__ __forceinline__ unsigned inside(int p, int end) {
    if (p >= end) return 0;
    int y = p % AREA / WIDTH, x = p % WIDTH;
    unsigned columns = (x > 0 ? 1 : 0) | 2 | (x < WIDTH - 1 ? 4 : 0);
    return (y > 0 ? columns : 0) | columns << 3 | (y < HEIGHT - 1 ? columns << 6 : 0);
}

// Which vector of a line of GROUPS vectors a thread works on, and in which of the lines that all
// threads have at once. Eight threads, who store 128 bytes, have both halves of the banks: with
// four vectors in a line, they have lines that are four apart.
template <int GROUPS> __device__ __forceinline__ int own_element() { return threadIdx.x % GROUPS * VECTOR; }
template <int GROUPS> __device__ __forceinline__ int own_line() {
    int i = threadIdx.x / GROUPS;
    return GROUPS == 4 ? (i & ~7) | (i & 1) << 2 | (i >> 1 & 3) : i;
}

// relu(scale * input + shift) of a vector of channels. Beyond the last channels these are used
// again: their weight is 0, or their sums are not written.
struct Normalised {
    Values scale, shift;
    __device__ __forceinline__ Normalised(const float *scale, const float *shift, int c) : scale(floats_at(scale + c)), shift(floats_at(shift + c)) {}
    __device__ __forceinline__ Pack of(const Pack &x) const {
        Values values;
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) values[i] = fmaf(x[i], scale[i], shift[i]);
        return Pack::of<true>(values);
    }
};

// The same value, hidden from the compiler, so that what is computed from it is not kept in registers
// from one round of a loop to the next.
__device__ __forceinline__ unsigned unknown(unsigned value) {
#ifndef CUDA_EMULATOR
    asm volatile("" : "+r"(value));
#endif
    return value;
}

// Lines of zeros are read for taps outside the image. They are eight, from a multiple of eight on,
// so that each line has one in its own banks: eight adjacent lines are read at once, without
// conflicts, whichever of them are outside.
template <int WIDE> __device__ __forceinline__ void put_zeros(store_t (*lines)[WIDE + PAD]) {
    constexpr int GROUPS = WIDE / VECTOR;
#pragma unroll
    for (int i = 0; i < ZEROS; i += THREADS / GROUPS) {
        int line = i + threadIdx.x / GROUPS;
        if (line < ZEROS) put_pack(&lines[line][own_element<GROUPS>()], Pack::zeros());
    }
}

// The pixels of a tile and those around it: lines of WIDE values, and lines of zeros.
template <int TILE, int WIDE> struct Halo {
    typedef Around<TILE> Lines;
    static constexpr int STAGED = Lines::LINES, END = (STAGED + ZEROS - 1) / ZEROS * ZEROS;
    alignas(16) store_t value[END + ZEROS][WIDE + PAD];

    // The line of tile row `row` under a tap, if `taps` are those of the row that are inside.
    __device__ __forceinline__ const store_t *under(int row, unsigned taps, int tap) const {
        int line = row + tap / 3 * Lines::LIFT + tap % 3;
        return value[taps >> tap & 1 ? line : END + line % ZEROS];
    }
    // Fills all lines with WIDE normalised channels from `first_channel` on. The values of a line
    // are used after all loads of a batch have started. A line may have no pixel; then no tap
    // inside an image reads it, and it gets the values of any pixel.
    __device__ __forceinline__ void fill(int first, const store_t *input, const float *scale, const float *shift, int first_channel,
                                         int channels, int pixels) {
        constexpr int GROUPS = WIDE / VECTOR, AT_ONCE = THREADS / GROUPS, PASSES = (STAGED + AT_ONCE - 1) / AT_ONCE;
        constexpr int BATCHES = (PASSES + 2) / 3, BATCH = (PASSES + BATCHES - 1) / BATCHES;
        int element = own_element<GROUPS>(), c = min(first_channel + element, channels - VECTOR);
        Normalised normalised(scale, shift, c);
        for (int line0 = own_line<GROUPS>(); line0 < STAGED; line0 += BATCH * AT_ONCE) {
            Pack fetched[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                int p = Lines::pixel(min(line0 + i * AT_ONCE, STAGED - 1), first);
                fetched[i] = pack_at(input + (size_t)min(max(p, 0), pixels - 1) * IN_STRIDE + c);
            }
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                int line = line0 + i * AT_ONCE;
                if (line < STAGED) put_pack(&value[line][element], normalised.of(fetched[i]));
            }
        }
    }
};

// Copies LINES lines of WIDE elements, of the packed weight or of a gradient, to shared memory.
// `line(i)` is the start of line i, null if it does not exist; `count` of its elements exist.
template <int LINES, int WIDE, class Line>
__device__ __forceinline__ void bring(store_t (*into)[WIDE + PAD], int count, const store_t *any, Line line) {
    constexpr int GROUPS = WIDE / VECTOR, AT_ONCE = THREADS / GROUPS;
    int element = own_element<GROUPS>();
#pragma unroll 3
    for (int from = 0; from < LINES; from += AT_ONCE) {
        int i = from + own_line<GROUPS>();
        if (LINES % AT_ONCE && i >= LINES) continue;
        const store_t *at = line(i);
        copy_async(&into[i][element], at && element < count ? at + element : nullptr, any);
    }
}

// A thread's share of a tile of TILE pixels by N maps or channels, summed over taps.
#if BF16
// Each warp has 32 columns and 32 rows or more: an mma costs 2 wavefronts of shared memory or less.
// If a tile is smaller than eight of these, PARTS of the warps divide its depth.
template <int TILE, int N> struct TileSums {
    static constexpr int WARPS = THREADS / 32, ACROSS = N / 32, HIGH = TILE * ACROSS / WARPS > 32 ? TILE * ACROSS / WARPS : 32;
    static constexpr int DOWN = TILE / HIGH, PARTS = WARPS / DOWN / ACROSS;
    static_assert(N % 32 == 0 && TILE % HIGH == 0, "warps have whole products");
    float value[HIGH / 16][4][4];
    // Which taps of the rows that this lane loads are inside the image.
    unsigned taps[HIGH / 16];

    __device__ static int part() { return threadIdx.x / 32 / (DOWN * ACROSS); }
    __device__ static int top() { return threadIdx.x / 32 / ACROSS % DOWN * HIGH; }
    __device__ static int left() { return threadIdx.x / 32 % ACROSS * 32; }
    // The row of the tile that is row i of a product. Four that follow each other are two apart, so
    // that 16 lanes, who have two columns of four rows each, store them in different banks.
    __device__ static int row(int i) { return (i & ~7) | (i & 3) << 1 | (i >> 2 & 1); }
    __device__ __forceinline__ TileSums(int row0, int pixels) : value() {
#pragma unroll
        for (int i = 0; i < HIGH / 16; ++i) taps[i] = inside(row0 + top() + 16 * i + row(threadIdx.x % 16), pixels);
    }
    // Adds the products of the lines under all taps with the weight. `weight(tap)` has lines that
    // are maps, if they are ALONG the depth, or else depths.
    template <bool ALONG, int WIDE, class Weight> __device__ __forceinline__ void add(const Halo<TILE, WIDE> &halo, Weight weight) {
        static_assert(WIDE % (16 * PARTS) == 0, "parts have as much");
        int lane = threadIdx.x % 32;
        unsigned own[HIGH / 16];
#pragma unroll
        for (int i = 0; i < HIGH / 16; ++i) own[i] = unknown(taps[i]);
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
            const store_t *lines[HIGH / 16];
#pragma unroll
            for (int i = 0; i < HIGH / 16; ++i)
                lines[i] = halo.under(top() + 16 * i + row(lane % 16), own[i], tap) + part() * 16 + lane / 16 * 8;
#pragma unroll
            for (int k = 0; k < WIDE; k += 16 * PARTS) {
                unsigned rows[HIGH / 16][4], columns[2][4];
#pragma unroll
                for (int i = 0; i < HIGH / 16; ++i) ldmatrix_x4<false>(rows[i], lines[i] + k);
#pragma unroll
                for (int j = 0; j < 2; ++j)
                    ldmatrix_x4<!ALONG>(columns[j], ALONG ? &weight(tap)[left() + 16 * j + lane / 16 * 8 + lane % 8][part() * 16 + k + lane / 8 % 2 * 8]
                                                          : &weight(tap)[part() * 16 + k + lane % 16][left() + 16 * j + lane / 16 * 8]);
#pragma unroll
                for (int i = 0; i < HIGH / 16; ++i)
#pragma unroll
                    for (int j = 0; j < 4; ++j) mma_m16n8k16_bf16(value[i][j], rows[i], columns[j / 2] + j % 2 * 2);
            }
        }
    }
    // Puts the sums of all parts, in their order, into the tile. Ends with a barrier.
    __device__ __forceinline__ void stage(Stage<TILE, N> &stage) const {
        int lane = threadIdx.x % 32;
#pragma unroll 1
        for (int turn = 0; turn < PARTS; ++turn) {
            if (part() == turn) {
#pragma unroll
                for (int i = 0; i < HIGH / 16; ++i)
#pragma unroll
                    for (int j = 0; j < 4; ++j)
#pragma unroll
                        for (int half = 0; half < 2; ++half) {
                            float *into = &stage.value[top() + 16 * i + row(lane / 4) + 8 * half][left() + 8 * j + lane % 4 * 2];
                            float2 &at = *reinterpret_cast<float2 *>(ALIGNED(into, 8)), sum = {value[i][j][2 * half], value[i][j][2 * half + 1]};
                            if (turn > 0) sum.x += at.x, sum.y += at.y;
                            at = sum;
                        }
            }
            __syncthreads();
        }
    }
};
#else
template <int TILE, int N> struct TileSums {
    typedef Sums<TILE, N> Own;
    Own sums;
    unsigned taps[TILE / 16];

    __device__ __forceinline__ TileSums(int row0, int pixels) {
#pragma unroll
        for (int i = 0; i < TILE / 16; ++i) taps[i] = inside(row0 + threadIdx.x / 16 + 16 * i, pixels);
    }
    template <bool ALONG, int WIDE, class Weight> __device__ __forceinline__ void add(const Halo<TILE, WIDE> &halo, Weight weight) {
#pragma unroll 1
        for (int tap = 0; tap < TAPS; ++tap) {
            const store_t *lines[TILE / 16];
#pragma unroll
            for (int i = 0; i < TILE / 16; ++i) lines[i] = halo.under(threadIdx.x / 16 + 16 * i, taps[i], tap);
#pragma unroll UNROLL
            for (int k = 0; k < WIDE; k += Own::AT_ONCE) {
                typename Own::Rows rows;
#pragma unroll
                for (int i = 0; i < TILE / 16; ++i) Own::template four<true>(rows.of[i], [&](int) { return lines[i]; }, 0, k);
                sums.template multiply<ALONG>(rows, [&](int line) { return weight(tap)[line]; }, k);
            }
        }
    }
    __device__ __forceinline__ void stage(Stage<TILE, N> &stage) const {
        sums.stage(stage);
        __syncthreads();
    }
};
#endif

union Forward {
    struct {
        Halo<ROWS, FORWARD_DEPTH> halo;
        store_t weight[TAPS][TILE_MAPS][FORWARD_DEPTH + PAD];
    };
    Stage<ROWS, TILE_MAPS> stage;
};
static_assert(sizeof(Forward) <= SPATIAL_FORWARD_SHARED, "the host knows how much shared memory there has to be");

// Grid: tiles of pixels, tiles of maps.
extern "C" __global__ void __launch_bounds__(THREADS, BF16 ? 3 : 2) spatial_forward(
    const store_t *input, const float *scale, const float *shift, const store_t *weight, store_t *out, float *partial,
    const Scalars *scalars, int column, int site, int pixels, int channels, int training) {
    DYNAMIC_SHARED(memory);
    Forward &shared = *reinterpret_cast<Forward *>(memory);
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * TILE_MAPS, rows = min(ROWS, pixels - row0), count = min(TILE_MAPS, MAPS - map0);
    TileSums<ROWS, TILE_MAPS> sums(row0, pixels);
    put_zeros<FORWARD_DEPTH>(shared.halo.value + shared.halo.END);
    for (int from = 0; from < channels; from += FORWARD_DEPTH) {
        bring<TAPS * TILE_MAPS, FORWARD_DEPTH>(shared.weight[0], channels - from, weight, [&](int i) {
            int n = map0 + i % TILE_MAPS;
            return n < MAPS ? weight + ((size_t)(i / TILE_MAPS) * MAPS + n) * channels + from : nullptr;
        });
        shared.halo.fill(row0, input, scale, shift, from, channels, pixels);
        copies_done();
        __syncthreads();
        sums.template add<true>(shared.halo, [&](int tap) { return shared.weight[tap]; });
        __syncthreads();
    }
    sums.stage(shared.stage);
    size_t number = (size_t)row0 * MAPS + map0;
    write(shared.stage, rows, count, out + (size_t)row0 * OUT_STRIDE + column + map0, OUT_STRIDE, Dropout(scalars, site), number, MAPS);
    if (training) shared.stage.moments(rows, count, MAPS, map0, blockIdx.x, partial);
}

// A vector of a tile of results. Eight lanes, who have 64 floats in a row, have both halves of the
// banks at once: half of them load the second four of their floats first.
__device__ __forceinline__ Values staged_at(const float *at) {
#if VECTOR == 8
    int first = threadIdx.x & 4;
    float4 one = *reinterpret_cast<const float4 *>(ALIGNED(at + first, 16)), two = *reinterpret_cast<const float4 *>(ALIGNED(at + (first ^ 4), 16));
    float4 low = first ? two : one, high = first ? one : two;
    return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
#else
    return floats_at(at);
#endif
}

union Pull {
    struct {
        Halo<PULL_ROWS, DEPTH> halo;
        store_t weight[TAPS][DEPTH][TILE_CHANNELS + PAD];
    };
    Stage<PULL_ROWS, TILE_CHANNELS> stage;
};
static_assert(sizeof(Pull) <= SPATIAL_PULL_SHARED, "the host knows how much shared memory there has to be");

// The gradient of the input, through ReLU and the affine part of BN. If `gamma` is given, gamma
// times the gradient is added to `into` (pixels x IN_STRIDE). Otherwise the gradient is stored as
// it is, and the caller includes gamma when it undoes BN. A pixel collects the gradients of the
// pixels whose taps it was. Grid: tiles of pixels, tiles of channels.
extern "C" __global__ void __launch_bounds__(THREADS, BF16 && PULL_ROWS < 256 && MAPS <= DEPTH ? 3 : 2) spatial_pull(
    const grad_t *dout, const store_t *weight, const store_t *input, const float *scale, const float *shift, const float *mean,
    const float *gamma, grad_t *into, float *partial, int add, int pixels, int channels) {
    DYNAMIC_SHARED(memory);
    Pull &shared = *reinterpret_cast<Pull *>(memory);
    int row0 = blockIdx.x * PULL_ROWS, channel0 = blockIdx.y * TILE_CHANNELS, count = min(TILE_CHANNELS, channels - channel0);
    typedef Around<PULL_ROWS> Lines;
    TileSums<PULL_ROWS, TILE_CHANNELS> sums(row0, pixels);
    put_zeros<DEPTH>(shared.halo.value + shared.halo.END);
    for (int from = 0; from < MAPS; from += DEPTH) {
        bring<TAPS * DEPTH, TILE_CHANNELS>(shared.weight[0], count, weight, [&](int i) {
            int n = from + i % DEPTH;
            return n < MAPS ? weight + ((size_t)(i / DEPTH) * MAPS + n) * channels + channel0 : nullptr;
        });
        bring<Lines::LINES, DEPTH>(shared.halo.value, MAPS - from, dout, [&](int line) {
            int p = Lines::pixel(line, row0);
            return p >= 0 && p < pixels ? dout + (size_t)p * MAPS + from : nullptr;
        });
        copies_done();
        __syncthreads();
        sums.template add<false>(shared.halo, [&](int tap) { return shared.weight[TAPS - 1 - tap]; });
        __syncthreads();
    }
    sums.stage(shared.stage);
    pull(shared.stage, Norm{scale, shift, mean}, input, IN_STRIDE, channel0, count, channels, partial,
         [&](int row) -> long long { return row0 + row < pixels ? row0 + row : -1; },
         [&](int row, int column) { return staged_at(&shared.stage.value[row][column]); },
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

// The gradient of the weight takes pixels in tiles of WEIGHT_ROWS. A chunk is as many lines. While a
// slice's tiles follow each other, the chunks that both read stay where they are, and one more is
// staged while the product of a tile is computed. In a wide image each tile stages its own.
typedef Around<WEIGHT_ROWS> Lines;
constexpr int CHUNKS = (Lines::LINES + WEIGHT_ROWS - 1) / WEIGHT_ROWS, RING = (CHUNKS + Lines::WHOLE) * WEIGHT_ROWS;

// A thread's share of a tile of the weight's gradient: TILE_MAPS x WEIGHT_CHANNELS, for all taps.
#if BF16
// Each warp has 8 channels and all maps, so that a tap's operand is read once. The warps of a part
// have all channels; PARTS of them divide the pixels.
struct TapSums {
    static constexpr int ACROSS = WEIGHT_CHANNELS / 8, PARTS = THREADS / 32 / ACROSS, DOWN = TILE_MAPS / 16, AT_ONCE = 32;
    static_assert(PARTS == 2 && DOWN == 2, "a part completes 16 maps");
    // Of the other part, half of its sums.
    struct Exchange { float value[TAPS * 4][THREADS]; };
    float value[TAPS][DOWN][4];
    __device__ __forceinline__ TapSums() : value() {}
    __device__ static int part() { return threadIdx.x / 32 / ACROSS; }
    __device__ static int left() { return threadIdx.x / 32 % ACROSS * 8; }

    // Adds the products of the first `rows` pixels of a tile; of those that follow, dout is 0.
    // `under(row)` is asked for the line under each tap of a row.
    template <class Under> __device__ __forceinline__ void add(int rows, const store_t (*dout)[TILE_MAPS + PAD], Under under) {
        int lane = threadIdx.x % 32;
#pragma unroll 1
        for (int k = part() * AT_ONCE; k < rows; k += PARTS * AT_ONCE) {
            unsigned maps[2][DOWN][4];
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int i = 0; i < DOWN; ++i)
                    ldmatrix_x4<true>(maps[half][i], &dout[k + 16 * half + lane / 16 * 8 + lane % 8][16 * i + lane / 8 % 2 * 8]);
            auto own = under(k + lane);
#pragma unroll
            for (int tap = 0; tap < TAPS; ++tap) {
                unsigned two[4];
                ldmatrix_x4<true>(two, own.line(tap) + left());
#pragma unroll
                for (int half = 0; half < 2; ++half)
#pragma unroll
                    for (int i = 0; i < DOWN; ++i) mma_m16n8k16_bf16(value[tap][i], maps[half][i], two + 2 * half);
            }
        }
    }
    // Calls `put(tap, map, channel, sum, next)` for pairs of adjacent channels. The operands are not
    // read any more.
    template <class Put> __device__ __forceinline__ void put(Exchange &exchange, Put put) const {
        bool second = part() == 1;
        float own[TAPS][4];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TAPS * 4; ++i) {
            float lower = value[i / 4][0][i % 4], upper = value[i / 4][1][i % 4];
            own[i / 4][i % 4] = second ? upper : lower;
            exchange.value[i][threadIdx.x] = second ? lower : upper;
        }
        __syncthreads();
        int lane = threadIdx.x % 32, other = threadIdx.x ^ (THREADS / 2);
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap)
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                float sum[2];
#pragma unroll
                for (int j = 0; j < 2; ++j) sum[j] = own[tap][i + j] + exchange.value[tap * 4 + i + j][other];
                put(tap, part() * 16 + lane / 4 + i / 2 * 8, left() + lane % 4 * 2, sum[0], sum[1]);
            }
    }
};
#else
struct TapSums {
    struct Exchange {};
    Sums<TILE_MAPS, WEIGHT_CHANNELS> of[TAPS];

    template <class Under> __device__ __forceinline__ void add(int rows, const store_t (*dout)[TILE_MAPS + PAD], Under under) {
#pragma unroll 1
        for (int k = 0; k < rows; k += of[0].AT_ONCE) {
            auto maps = of[0].template rows<false>([&](int row) { return dout[row]; }, k);
            // Once for all taps.
            decltype(under(k)) own[] = {under(k), under(k + 1), under(k + 2), under(k + 3)};
            static_assert(Sums<TILE_MAPS, WEIGHT_CHANNELS>::AT_ONCE == 4, "so many pixels at once");
#pragma unroll
            for (int tap = 0; tap < TAPS; ++tap) of[tap].template multiply<false>(maps, [&](int row) { return own[row - k].line(tap); }, k);
        }
    }
    template <class Put> __device__ __forceinline__ void put(Exchange &, Put put) const {
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap)
#pragma unroll
            for (int i = 0; i < of[0].COUNT; ++i) put(tap, of[0].row(i), of[0].column(i), of[tap].value[i]);
    }
};
#endif

union Share {
    // After all else.
    Totals<THREADS> totals;
    struct {
        alignas(16) store_t lines[RING + ZEROS][WEIGHT_CHANNELS + PAD]; // the last are of zeros
        // One tile of dout is in use while the next is loaded.
        alignas(16) store_t dout[2][WEIGHT_ROWS][TILE_MAPS + PAD];
    };
    TapSums::Exchange exchange;
};
static_assert(sizeof(Share) <= SPATIAL_WEIGHT_SHARED, "the host knows how much shared memory there has to be");

// The gradient of the weight: each slice of pixels writes its own share, slices x maps x taps x
// channels, so that adjacent lanes write adjacent values; `gather` puts them in the weight's order.
// Grid: tiles of channels, tiles of maps, slices of `length` pixels. A block has all taps, so that
// its pixels are read and normalised once.
// At last, the blocks put together what `spatial_pull`'s tiles have left of the input's BN (`Passed`), which
// is needed after this launch: `lanes` channels each, so that there are enough blocks.
extern "C" __global__ void __launch_bounds__(THREADS, BF16 && Lines::WHOLE ? 2 : 1) spatial_weight(
    const grad_t *dout, const store_t *input, const float *scale, const float *shift, float *share, int pixels, int channels,
    int length, const float *partial, const float *gamma, const float *inverse, float *dgamma, float *dbeta, float *plain,
    float *normalised, int tiles, int add, int lanes) {
    DYNAMIC_SHARED(memory);
    Share &shared = *reinterpret_cast<Share *>(memory);
    int channel0 = blockIdx.x * WEIGHT_CHANNELS, map0 = blockIdx.y * TILE_MAPS;
    int first = blockIdx.z * length, last = min(first + length, pixels);
    // Gradients of the next slice do not belong to this one. Its pixels do, as taps.
    auto bring_dout = [&](int row0, int turn) {
        bring<WEIGHT_ROWS, TILE_MAPS>(shared.dout[turn], MAPS - map0, dout, [&](int row) {
            return row0 + row < last ? dout + (size_t)(row0 + row) * MAPS + afresh(map0) : nullptr;
        });
    };
    constexpr int GROUPS = WEIGHT_CHANNELS / VECTOR, AT_ONCE = THREADS / GROUPS, PASSES = WEIGHT_ROWS / AT_ONCE;
    static_assert(WEIGHT_ROWS % AT_ONCE == 0, "threads have as many vectors of a chunk");
    int element = own_element<GROUPS>(), channel = min(channel0 + element, channels - VECTOR);
    Pack fetched[PASSES];
    // A chunk of the lines of the tile at `row0`, or of those after them.
    auto fetch = [&](int row0, int chunk) {
#pragma unroll
        for (int i = 0; i < PASSES; ++i) {
            int p = Lines::pixel(chunk * WEIGHT_ROWS + i * AT_ONCE + own_line<GROUPS>(), row0);
            fetched[i] = pack_at(input + (size_t)min(max(p, 0), pixels - 1) * IN_STRIDE + channel);
        }
    };
    auto put = [&](int place) {
        Normalised normalised(scale, shift, afresh(channel));
#pragma unroll
        for (int i = 0; i < PASSES; ++i)
            put_pack(&shared.lines[place + i * AT_ONCE + own_line<GROUPS>()][element], normalised.of(fetched[i]));
    };
    put_zeros<WEIGHT_CHANNELS>(shared.lines + RING);
    auto stage = [&](int row0) {
#pragma unroll 1
        for (int chunk = 0; chunk < CHUNKS; ++chunk) fetch(row0, chunk), put(chunk * WEIGHT_ROWS);
    };
    bring_dout(first, 0);
    if (Lines::WHOLE) stage(first);
    TapSums sums;
    // `place` is the line of the ring where the tile's lines start.
    for (int row0 = first, place = 0, turn = 0; row0 < last; row0 += WEIGHT_ROWS, turn ^= 1) {
        if (!Lines::WHOLE) stage(row0);
        copies_done();
        // All have put theirs, and nobody still reads what is written next.
        __syncthreads();
        bool more = row0 + WEIGHT_ROWS < last;
        if (more) bring_dout(row0 + WEIGHT_ROWS, turn ^ 1);
        if (Lines::WHOLE && more) fetch(row0, CHUNKS);
        sums.add(min(WEIGHT_ROWS, last - row0), shared.dout[turn], [&](int row) {
            struct {
                const store_t (*lines)[WEIGHT_CHANNELS + PAD];
                unsigned taps;
                int place;
                __device__ __forceinline__ const store_t *line(int tap) const {
                    unsigned at = place + tap / 3 * Lines::LIFT + tap % 3;
                    return lines[taps >> tap & 1 ? min(at, at - RING) : RING + at % ZEROS];
                }
            } own = {shared.lines, inside(row0 + row, last), place + row};
            return own;
        });
        if (!Lines::WHOLE) __syncthreads();
        if (Lines::WHOLE && more) {
            // The chunk that the tile before this one was the last to read.
            put((place + CHUNKS * WEIGHT_ROWS) % RING);
            place = (place + WEIGHT_ROWS) % RING;
        }
    }
    share += (size_t)blockIdx.z * MAPS * TAPS * channels;
    sums.put(shared.exchange, [&](int tap, int n, int c, auto... values) {
        n += map0, c += channel0;
        float *at = share + ((size_t)n * TAPS + tap) * channels + c, own[] = {values...};
        if (n >= MAPS || c >= channels) return;
        if constexpr (sizeof...(values) == 2 && VECTOR % 2 == 0) *reinterpret_cast<float2 *>(ALIGNED(at, 8)) = {own[0], own[1]};
        else
#pragma unroll
            for (int i = 0; i < (int)sizeof...(values); ++i)
                if (c + i < channels) at[i] = own[i];
    });
    // After all else, when the registers are free.
    int group = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    if (group * lanes < channels) {
        __syncthreads();
        Passed{partial, gamma, inverse, dgamma, dbeta, plain, normalised, tiles, channels, add}.gather(shared.totals, group, lanes, channels);
    }
}
