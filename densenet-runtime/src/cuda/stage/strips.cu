// The stem's convolution in bf16, and the gradient of its weight, from rows of the images that are
// staged in shared memory. It follows stem.cu.
//
// A tile is some adjacent pixels of the maps, which lie in a few rows. The image rows under them are
// copied to shared memory as they are, between zeros, and a row of a pixel's patch is KERNEL
// CHANNELS adjacent elements there: the tensor cores' operand is read from them directly. Along the
// patch, it is taken row by row, each padded to whole groups of eight. A group may reach beyond the
// patch's row; the weight is 0 there, and what becomes of its gradient is not written.
//
// Forward, a tile has STRIP pixels. A block prepares the weight once and goes through the tiles,
// copying the next one's rows while it computes. Shared memory, for each 16 pixels x 16 depths: 4
// reads of an operand that all maps share, and 2 of the weight for 16 maps, which 32 pixels share.
// The weight's gradient takes ROWS pixels at a time: their gradient is gathered once, and a warp has
// a row of the patch.

// What does not lie in an image is 0, so the images can be taken as one tall image in which each
// has TALL rows.
constexpr int BORDER = KERNEL / 2 * CHANNELS, TAPS = KERNEL * CHANNELS, ROW = WIDTH * CHANNELS;
constexpr int TALL = (CONVOLVED_HEIGHT - 1) * STEP + KERNEL;
// The most rows of the tall image under this many pixels.
__device__ constexpr int lines_under(int pixels) {
    int below = (pixels - 1 + CONVOLVED_WIDTH - 1) / CONVOLVED_WIDTH;
    return below * STEP + KERNEL + (below + CONVOLVED_HEIGHT - 1) / CONVOLVED_HEIGHT * (KERNEL - STEP);
}

// Patches' rows are read in pairs of elements. If all of them start at even or all at odd places,
// they are read from even ones on.
constexpr bool PAIRED = STEP * CHANNELS % 2 == 0;
constexpr int EARLY = PAIRED ? BORDER % 2 : 0;
constexpr int GROUPS = (EARLY + TAPS + 7) / 8, DEPTHS = (KERNEL * GROUPS + 1) / 2;
// The image's first element in a line, and where the first pixel's patch starts.
constexpr int LEFT = (BORDER + 7) / 8 * 8, START = LEFT - BORDER - EARLY;
constexpr int COPIED_END = LEFT + ROW, READ_END = START + (CONVOLVED_WIDTH - 1) * STEP * CHANNELS + 8 * GROUPS;
constexpr int LINE = ((COPIED_END > READ_END ? COPIED_END : READ_END) + 7) / 8 * 8;
// Elements that are copied at once: as many as divide a row.
constexpr int COPIED = ROW % 8 == 0 ? 8 : ROW % 4 == 0 ? 4 : ROW % 2 == 0 ? 2 : 1;

// Maps of a tile. A warp has all of them, and HIGH pixels.
constexpr int ACROSS = MAPS > 32 ? 64 : 32, WARPS = THREADS / 32, HIGH = STRIP / WARPS;
static_assert(HIGH == 32, "two products of sixteen pixels share what is read of the weight");

struct alignas(16) Fragments { unsigned of[4]; };
// The rows under a tile and under the next one.
template <int PIXELS> struct Lines { alignas(16) store_t of[2][lines_under(PIXELS)][LINE]; };
struct Strip {
    Lines<STRIP> lines;
    // For each product of sixteen depths, the operands of two products of eight maps.
    Fragments weight[DEPTHS][ACROSS / 16][32];
    alignas(16) float sum[WARPS][ACROSS];
    alignas(16) float mean[ACROSS];
};
static_assert(sizeof(Strip) <= STEM_FORWARD_SHARED, "the host gives as much");

// A thread has the columns 2t and 2t + 1 of each product of eight maps. The maps are permuted so
// that those of four products are adjacent: eight, which are stored together.
__device__ __forceinline__ int map_of(int product, int column) {
    return product / 4 * 32 + column / 2 * 8 + product % 4 * 2 + column % 2;
}

// The row of the tall image in which the patch of a pixel starts.
__device__ __forceinline__ int tall_row(int p) { return p / AREA * TALL + p % AREA / CONVOLVED_WIDTH * STEP; }

// What is not copied stays 0. Needs a barrier before rows are copied.
template <int PIXELS> __device__ __forceinline__ void clear(Lines<PIXELS> &lines) {
    constexpr int ALL = lines_under(PIXELS);
    for (int i = threadIdx.x; i < 2 * ALL * LINE / 8; i += THREADS)
        *reinterpret_cast<Fragments *>(&lines.of[i / (ALL * LINE / 8)][i / (LINE / 8) % ALL][i % (LINE / 8) * 8]) = {};
}

// Starts to copy the rows under pixels `first` to `last`.
template <int PIXELS>
__device__ __forceinline__ void copy_rows(Lines<PIXELS> &lines, int turn, const store_t *images, int first, int last) {
    int top = tall_row(first), count = tall_row(last) + KERNEL - top;
    // A warp takes whole lines.
    for (int line = threadIdx.x / 32; line < count; line += WARPS) {
        int image = (top + line) / TALL, y = (top + line) % TALL - KERNEL / 2;
        bool there = y >= 0 && y < HEIGHT;
        const store_t *from = images + ((size_t)image * HEIGHT + (there ? y : 0)) * ROW;
        for (int element = threadIdx.x % 32 * COPIED; element < ROW; element += 32 * COPIED)
            copy_async<COPIED * sizeof(store_t)>(&lines.of[turn][line][LEFT + element], there ? from + element : nullptr, images);
    }
}

// Element `e` of the padded row `ky` of a map's patch.
__device__ __forceinline__ float weight_at(const float *weight, int m, int ky, int e) {
    e -= EARLY;
    return m < MAPS && ky < KERNEL && e >= 0 && e < TAPS ? weight[(size_t)m * PATCH + place_in_weight(ky * TAPS + e)] : 0.0f;
}

// Two adjacent elements.
__device__ __forceinline__ unsigned pair_at(const store_t *at) {
    if (PAIRED) return *reinterpret_cast<const unsigned *>(ALIGNED(at, 4));
    return at[0].bits | (unsigned)at[1].bits << 16;
}

// The sums of COUNT columns over the warp's eight threads that have them. Afterwards each of the
// threads has an eighth of the sums, lane 4g + t those from column g COUNT / 8 on.
template <int BIT = 16, int COUNT> __device__ __forceinline__ void add_rows(float (&of)[COUNT]) {
    constexpr int LEFT_OVER = COUNT * BIT / 32;
    bool upper = threadIdx.x & BIT;
#pragma unroll
    for (int i = 0; i < LEFT_OVER; ++i) {
        float given = upper ? of[i] : of[LEFT_OVER + i], kept = upper ? of[LEFT_OVER + i] : of[i];
        of[i] = kept + __shfl_xor_sync(~0u, given, BIT);
    }
    if constexpr (BIT > 4) add_rows<BIT / 2>(of);
}

// `out` is pixels x `stride`. Grid: blocks that share the tiles, tiles of maps.
extern "C" __global__ void __launch_bounds__(THREADS, 2) stem_forward(
    const store_t *images, const float *weight, store_t *out, float *partial, int stride, int pixels, int training) {
    DYNAMIC_SHARED(memory);
    Strip &shared = *reinterpret_cast<Strip *>(memory);
    int map0 = blockIdx.y * ACROSS, tiles = (pixels + STRIP - 1) / STRIP;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;

    clear(shared.lines);
    for (int i = threadIdx.x; i < DEPTHS * (ACROSS / 16) * 128; i += THREADS) {
        int word = i % 4, of = i / 4 % 32, two = i / 128 % (ACROSS / 16), depth = i / (128 * (ACROSS / 16));
        int m = map0 + map_of(2 * two + word / 2, of / 4), group = 2 * depth + word % 2;
        int ky = group / GROUPS, e = group % GROUPS * 8 + of % 4 * 2;
        shared.weight[depth][two][of].of[word] = pack_bf16<false>(weight_at(weight, m, ky, e), weight_at(weight, m, ky, e + 1));
    }
    __syncthreads();
    auto copy = [&](int turn, int tile) { copy_rows(shared.lines, turn, images, tile * STRIP, min((tile + 1) * STRIP, pixels) - 1); };
    copy(0, blockIdx.x);
    for (int tile = blockIdx.x, turn = 0; tile < tiles; tile += gridDim.x, turn ^= 1) {
        copies_done();
        // All have copied theirs, and nobody still reads the other lines.
        __syncthreads();
        if (tile + (int)gridDim.x < tiles) copy(turn ^ 1, tile + gridDim.x);

        // The thread's rows of products 0 and 1 are 16 i + 8 half + g. Beyond the last pixel the
        // first is computed again.
        int row0 = tile * STRIP, own = warp * HIGH + g, rows = min(STRIP, pixels - row0), top = tall_row(row0);
        const store_t *at[2][2];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int row = own + 8 * i, p = row0 + (row < rows ? row : 0);
            at[i / 2][i % 2] = &shared.lines.of[turn][tall_row(p) - top][START + p % CONVOLVED_WIDTH * STEP * CHANNELS + 2 * t];
        }
        float sums[2][ACROSS / 8][4] = {};
#pragma unroll
        for (int depth = 0; depth < DEPTHS; ++depth) {
            unsigned a[2][4];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                int group = 2 * depth + i / 2 % 2, ky = group / GROUPS;
                a[i / 4][i % 4] = ky < KERNEL ? pair_at(at[i / 4][i % 2] + ky * LINE + group % GROUPS * 8) : 0;
            }
#pragma unroll
            for (int two = 0; two < ACROSS / 16; ++two) {
                Fragments b = shared.weight[depth][two][lane];
#pragma unroll
                for (int i = 0; i < 4; ++i) mma_m16n8k16_bf16(sums[i / 2][2 * two + i % 2], a[i / 2], b.of + i % 2 * 2);
            }
        }

        // Stores eight maps at a time, and leaves the stored values in the sums.
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int row = afresh(own) + 8 * i;
#pragma unroll
            for (int from = 0; from < ACROSS / 4; from += VECTOR) {
                auto value = [&](int v) -> float & { return sums[i / 2][(from + v) / 2][i % 2 * 2 + (from + v) % 2]; };
                Values values;
#pragma unroll
                for (int v = 0; v < VECTOR; ++v) values[v] = value(v);
                Pack pack = Pack::of<false>(values);
                int m = afresh(map0) + from / 8 * 32 + t * 8 + from % 8;
                if (row < rows && m < MAPS) put_pack(out + (size_t)(row0 + row) * stride + m, pack);
#pragma unroll
                for (int v = 0; v < VECTOR; ++v) value(v) = pack[v];
            }
        }
        if (!training) continue;

        // Mean and sum of squared deviations of each map of the tile.
        auto total = [&](int m) {
            float sum = 0.0f;
            for (int w = 0; w < WARPS; ++w) sum += shared.sum[w][m];
            return sum;
        };
        auto add = [&](auto term) {
            float own_sums[ACROSS / 4];
#pragma unroll
            for (int n = 0; n < ACROSS / 4; ++n) {
                own_sums[n] = 0.0f;
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (afresh(own) + 8 * i < rows) own_sums[n] += term(sums[i / 2][n / 2][i % 2 * 2 + n % 2], n);
            }
            add_rows(own_sums);
#pragma unroll
            for (int i = 0; i < ACROSS / 32; ++i) {
                int n = g * (ACROSS / 32) + i;
                shared.sum[warp][n / 8 * 32 + t * 8 + n % 8] = own_sums[i];
            }
            __syncthreads();
        };
        int m = threadIdx.x;
        add([](float value, int) { return value; });
        if (m < ACROSS) shared.mean[m] = total(m) / (float)rows;
        __syncthreads();
        float means[ACROSS / 4];
#pragma unroll
        for (int n = 0; n < ACROSS / 4; ++n) means[n] = shared.mean[n / 8 * 32 + t * 8 + n % 8];
        add([&](float value, int n) {
            float d = value - means[n];
            return d * d;
        });
        if (m < ACROSS && map0 + m < MAPS) {
            float *into = partial + ((size_t)tile * MAPS + map0 + m) * 2;
            into[0] = shared.mean[m];
            into[1] = total(m);
        }
    }
}

// The gradient of the weight. Of WARPS, each has a row of the patch and all maps, or some if there
// are warps enough.
constexpr int SHARERS = WARPS / KERNEL, HELD = ACROSS / 16 / SHARERS;
// Two groups of a patch's row are read in pairs of elements, one of each group.
constexpr int PAIRS = PAIRED ? GROUPS / 2 : 0;
struct Slice {
    Lines<ROWS> lines;
    alignas(16) store_t gradient[2][ROWS][ACROSS + PAD];
    // Where the patches of the pixels start in `lines`.
    alignas(8) int start[2][ROWS];
};
static_assert(sizeof(Slice) <= STEM_WEIGHT_SHARED, "the host gives as much");

// The element of a patch's padded row in a column of a group.
__device__ __forceinline__ int element_of(int group, int column) {
    return group < 2 * PAIRS ? group / 2 * 16 + 2 * column + group % 2 : group * 8 + column;
}

// A share for each slice of `length` pixels, in the weight's order. Grid: 1, tiles of maps, slices.
extern "C" __global__ void __launch_bounds__(THREADS, 2) stem_weight(
    const grad_t *dout, const unsigned char *choice, const store_t *convolved, const float *undo, const store_t *images,
    float *share, int pixels, int length) {
    DYNAMIC_SHARED(memory);
    Slice &shared = *reinterpret_cast<Slice *>(memory);
    int map0 = blockIdx.y * ACROSS, first = blockIdx.z * length, last = min(first + length, pixels);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int ky = warp % KERNEL, held0 = warp / KERNEL * HELD * 16;

    // A thread makes the gradient of the same maps for all pixels.
    int column = threadIdx.x % (ACROSS / VECTOR) * VECTOR, m = map0 + column;
    Gradient gradient = {dout, choice, convolved, undo, last, map0};
    Undo own = m < MAPS ? Undo::of(undo, m) : Undo{};
    auto prepare = [&](int turn, int from) {
        int end = min(from + ROWS, last) - 1, top = tall_row(from);
        copy_rows(shared.lines, turn, images, from, end);
        if (threadIdx.x < ROWS) {
            int p = min(from + (int)threadIdx.x, end);
            shared.start[turn][threadIdx.x] = (tall_row(p) - top) * LINE + START + p % CONVOLVED_WIDTH * STEP * CHANNELS;
        }
#pragma unroll 1
        for (int row = threadIdx.x / (ACROSS / VECTOR); row < ROWS; row += THREADS / (ACROSS / VECTOR)) {
            Pack pack = from + row <= end && m < MAPS ? gradient.at(from + row, m, [&] { return own; }) : Pack::zeros();
            put_pack(&shared.gradient[turn][row][column], pack);
        }
    };
    clear(shared.lines);
    __syncthreads();
    prepare(0, first);
    float sums[HELD][GROUPS][4] = {};
    for (int from = first, turn = 0; from < last; from += ROWS, turn ^= 1) {
        copies_done();
        // All is there, and nobody still reads the other half.
        __syncthreads();
        if (from + ROWS < last) prepare(turn ^ 1, from + ROWS);
        if (warp >= KERNEL * SHARERS) continue;
        const store_t *line = &shared.lines.of[turn][ky][0];
#pragma unroll 1
        for (int k = 0; k < ROWS; k += 16) {
            unsigned a[HELD][4], b[GROUPS][2];
#pragma unroll
            for (int i = 0; i < HELD; ++i)
                ldmatrix_x4<true>(a[i], &shared.gradient[turn][k + lane / 16 * 8 + lane % 8][held0 + 16 * i + lane / 8 % 2 * 8]);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int *start = &shared.start[turn][k + 8 * half + 2 * t];
                const store_t *x = line + start[0], *y = line + start[1];
#pragma unroll
                for (int n = 0; n < GROUPS; ++n) {
                    int e = element_of(n, g);
                    if (n >= 2 * PAIRS) {
                        b[n][half] = x[e].bits | (unsigned)y[e].bits << 16;
                    } else if (n % 2 == 0) {
                        unsigned of_x = pair_at(x + e), of_y = pair_at(y + e);
                        b[n][half] = of_x & 0xffff | of_y << 16, b[n + 1][half] = of_x >> 16 | of_y & 0xffff0000;
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < HELD; ++i)
#pragma unroll
                for (int n = 0; n < GROUPS; ++n) mma_m16n8k16_bf16(sums[i][n], a[i], b[n]);
        }
    }
    if (warp >= KERNEL * SHARERS) return;
#pragma unroll
    for (int i = 0; i < HELD; ++i)
#pragma unroll
        for (int n = 0; n < GROUPS; ++n)
#pragma unroll
            for (int d = 0; d < 4; ++d) {
                int of = map0 + held0 + 16 * i + g + d / 2 * 8, e = element_of(n, 2 * t + d % 2) - EARLY;
                if (of < MAPS && e >= 0 && e < TAPS)
                    share[((size_t)blockIdx.z * MAPS + of) * PATCH + place_in_weight(ky * TAPS + e)] = sums[i][n][d];
            }
}
