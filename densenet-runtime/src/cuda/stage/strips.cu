// The stem's convolution in bf16, from rows of the images that are staged in shared memory. It
// follows stem.cu.
//
// A tile is STRIP adjacent pixels of the maps, which lie in a few rows. The image rows under them
// are copied to shared memory as they are, between zeros, and a row of a pixel's patch is KERNEL
// CHANNELS adjacent elements there: the tensor cores' operand is read from them directly, in
// pairs. The depth of the product is the patch row by row, each padded to whole groups of eight.
// A group may reach beyond the patch's row; the weight is 0 there. A block prepares the weight
// once and goes through the tiles, copying the next one's rows while it computes.
//
// Shared memory, for each 16 pixels x 16 depths: 4 reads of an operand that all maps share, and 2
// of the weight for 16 maps, which 32 pixels share.

// What does not lie in an image is 0, so the images can be taken as one tall image in which each
// has TALL rows. LINES are the most rows under a tile.
constexpr int BORDER = KERNEL / 2 * CHANNELS, TAPS = KERNEL * CHANNELS, ROW = WIDTH * CHANNELS;
constexpr int TALL = (CONVOLVED_HEIGHT - 1) * STEP + KERNEL;
constexpr int MOST_ROWS = (STRIP - 1 + CONVOLVED_WIDTH - 1) / CONVOLVED_WIDTH;
constexpr int LINES = MOST_ROWS * STEP + KERNEL + (MOST_ROWS + CONVOLVED_HEIGHT - 1) / CONVOLVED_HEIGHT * (KERNEL - STEP);

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
struct Strip {
    alignas(16) store_t line[2][LINES][LINE];
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

// Starts to copy the rows under pixels `first` to `last`.
__device__ __forceinline__ void copy_rows(store_t (&into)[LINES][LINE], const store_t *images, int first, int last) {
    int top = tall_row(first), count = tall_row(last) + KERNEL - top;
    constexpr int COPIES = ROW / COPIED;
    for (int i = threadIdx.x; i < count * COPIES; i += THREADS) {
        int line = i / COPIES, element = i % COPIES * COPIED, image = (top + line) / TALL, y = (top + line) % TALL - KERNEL / 2;
        const store_t *from = images + ((size_t)image * HEIGHT + y) * ROW + element;
        copy_async<COPIED * sizeof(store_t)>(&into[line][LEFT + element], y >= 0 && y < HEIGHT ? from : nullptr, images);
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

    // What is not copied stays 0.
    for (int i = threadIdx.x; i < 2 * LINES * LINE / 8; i += THREADS)
        *reinterpret_cast<Fragments *>(&shared.line[i / (LINES * LINE / 8)][i / (LINE / 8) % LINES][i % (LINE / 8) * 8]) = {};
    for (int i = threadIdx.x; i < DEPTHS * (ACROSS / 16) * 128; i += THREADS) {
        int word = i % 4, of = i / 4 % 32, two = i / 128 % (ACROSS / 16), depth = i / (128 * (ACROSS / 16));
        int m = map0 + map_of(2 * two + word / 2, of / 4), group = 2 * depth + word % 2;
        int ky = group / GROUPS, e = group % GROUPS * 8 + of % 4 * 2;
        shared.weight[depth][two][of].of[word] = pack_bf16<false>(weight_at(weight, m, ky, e), weight_at(weight, m, ky, e + 1));
    }
    __syncthreads();
    auto copy = [&](int turn, int tile) { copy_rows(shared.line[turn], images, tile * STRIP, min((tile + 1) * STRIP, pixels) - 1); };
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
            at[i / 2][i % 2] = &shared.line[turn][tall_row(p) - top][START + p % CONVOLVED_WIDTH * STEP * CHANNELS + 2 * t];
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
            int row = own + 8 * i;
#pragma unroll
            for (int from = 0; from < ACROSS / 4; from += VECTOR) {
                auto value = [&](int v) -> float & { return sums[i / 2][(from + v) / 2][i % 2 * 2 + (from + v) % 2]; };
                Values values;
#pragma unroll
                for (int v = 0; v < VECTOR; ++v) values[v] = value(v);
                Pack pack = Pack::of<false>(values);
                int m = map0 + from / 8 * 32 + t * 8 + from % 8;
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
                    if (own + 8 * i < rows) own_sums[n] += term(sums[i / 2][n / 2][i % 2 * 2 + n % 2], n);
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
