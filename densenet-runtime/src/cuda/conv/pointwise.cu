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

template <bool FIRST, class A, class B> struct Either { typedef A Type; };
template <class A, class B> struct Either<false, A, B> { typedef B Type; };

// relu(scale * input + shift): lines are pixels, elements channels. Beyond the last pixel, that
// pixel is loaded again, and its sums are not written; beyond the last channel, that channel is,
// and its weight is 0. Scale and shift are loaded with the input, once for all of a thread's lines,
// which have the same channels: four of them, if the vector is longer, so that registers have room.
struct Normalised {
    static constexpr bool ALONG_DEPTH = true, PLAIN = false;
    static constexpr int SPAN = VECTOR < 4 ? VECTOR : 4;
    typedef int Place;
    // In bf16 words, since halves of them would be taken out as soon as they are loaded.
    static constexpr bool WORDS = BF16 && SPAN > 1;
    typedef Either<WORDS, unsigned, store_t>::Type Stored;
    struct alignas(SPAN * sizeof(store_t)) Made { Stored of[WORDS ? SPAN / 2 : SPAN]; };
    struct alignas(SPAN % 4 ? 4 : 16) Numbers { float of[SPAN]; };
    struct Fetched { Made x; Numbers scale, shift; };
    const store_t *input;
    const float *scale, *shift;
    int channels, pixels, first_pixel;
    __device__ __forceinline__ Place place(int line) const { return min(first_pixel + line, pixels - 1); }
    template <class T, class From> __device__ __forceinline__ static T at(const From *from) {
        return *reinterpret_cast<const T *>(ALIGNED(from, alignof(T)));
    }
    __device__ __forceinline__ Fetched fetch(Place pixel, int element) const {
        int c = min(element, channels - SPAN);
        return {at<Made>(input + (size_t)pixel * IN_STRIDE + c), at<Numbers>(scale + c), at<Numbers>(shift + c)};
    }
    __device__ __forceinline__ Made made(const Fetched &own, int) const {
        auto z = [&](float x, int i) { return fmaf(x, own.scale.of[i], own.shift.of[i]); };
        Made made;
        if constexpr (WORDS) {
#if BF16
#pragma unroll
            for (int i = 0; i < SPAN; i += 2) {
                unsigned two = own.x.of[i / 2];
                made.of[i / 2] = pack_bf16<true>(z(__uint_as_float(two << 16), i), z(__uint_as_float(two & 0xffff0000u), i + 1));
            }
#endif
        } else {
#pragma unroll
            for (int i = 0; i < SPAN; ++i) made.of[i] = relu(z(own.x.of[i], i));
        }
        return made;
    }
};
__device__ __forceinline__ void put_made(store_t *at, const Normalised::Made &made) {
    *reinterpret_cast<Normalised::Made *>(ALIGNED(at, alignof(Normalised::Made))) = made;
}

// The packed weight: lines are maps, in the order that gives threads runs of maps, elements
// channels. Beyond the last map, that map is loaded again.
struct Weight {
    static constexpr bool ALONG_DEPTH = true, PLAIN = true;
    static constexpr int SPAN = VECTOR;
    typedef int Place;
    typedef Nothing Fetched;
    const store_t *weight;
    int channels, first_map;
    __device__ __forceinline__ Place place(int line) const { return min(first_map + Sums<ROWS, COLUMNS>::column_of(line), MAPS - 1) * channels; }
    __device__ __forceinline__ const store_t *at(Place map, int c) const { return c < channels ? weight + map + c : nullptr; }
    __device__ __forceinline__ const store_t *any() const { return weight; }
};

union Forward {
    Pieces<ROWS, COLUMNS, Normalised, Weight, STAGES> pieces;
    // Afterwards.
    Columns<ROWS, COLUMNS> columns;
};
static_assert(sizeof(Forward) <= POINTWISE_FORWARD_SHARED, "the host knows how much shared memory there has to be");

// Whether three blocks share a multiprocessor: with short vectors, threads have more addresses than
// registers for that.
#if defined CUDA_EMULATOR || __CUDA_ARCH__ < 1000
constexpr bool THREE = BF16 && STAGES == 2 && VECTOR >= 4;
#else
constexpr bool THREE = BF16 && STAGES == 2 && VECTOR >= 8;
#endif

// Grid: tiles of pixels, tiles of maps.
extern "C" __global__ void __launch_bounds__(THREADS, THREE ? 3 : 2) pointwise_forward(
    const store_t *input, const float *scale, const float *shift, const store_t *weight, store_t *out, float *partial,
    const Scalars *scalars, int site, int pixels, int channels, int training) {
    DYNAMIC_SHARED(memory);
    Forward &shared = *reinterpret_cast<Forward *>(memory);
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS, rows = min(ROWS, pixels - row0), count = min(COLUMNS, MAPS - map0);
    Sums<ROWS, COLUMNS> sums;
    product(shared.pieces, sums, 0, channels, Normalised{input, scale, shift, channels, pixels, row0}, Weight{weight, channels, map0});
    size_t first = (size_t)row0 * MAPS + map0;
    write_runs(sums, shared.columns, rows, count, out + first, Dropout(scalars, site), first, MAPS, map0, blockIdx.x,
               training ? partial : nullptr);
}

// The same product where there are fewer tiles than multiprocessors: several blocks share a tile. Each
// sums over `length` channels, a multiple of DEPTH, and `pointwise_joined` puts their sums together in
// one order. sums[part][p][n]: a part writes P N f32 and reads its channels of the input and the weight.

typedef Pieces<ROWS, COLUMNS, Normalised, Weight, PART_STAGES> PartPieces;
static_assert(sizeof(PartPieces) <= POINTWISE_PART_SHARED, "the host knows how much shared memory there has to be");

// Calls `what(run, v, row, column)` for each vector of the thread's runs that lies within the tile.
template <class What> __device__ __forceinline__ void each_of_runs(int rows, int count, What what) {
    typedef Sums<ROWS, COLUMNS> Own;
#pragma unroll
    for (int run = 0; run < Own::RUNS; ++run)
#pragma unroll
        for (int v = 0; v < Own::RUN / VECTOR; ++v) {
            int row = Own::run_row(run), column = Own::run_column() + v * VECTOR;
            if (row < rows && column < count) what(run, v, row, column);
        }
}

// Grid: tiles of pixels, tiles of maps, parts.
extern "C" __global__ void __launch_bounds__(THREADS, 2) pointwise_part(
    const store_t *input, const float *scale, const float *shift, const store_t *weight, float *sums, int pixels, int channels,
    int length) {
    DYNAMIC_SHARED(memory);
    PartPieces &pieces = *reinterpret_cast<PartPieces *>(memory);
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS, rows = min(ROWS, pixels - row0), count = min(COLUMNS, MAPS - map0);
    int first = blockIdx.z * length;
    Sums<ROWS, COLUMNS> own;
    product(pieces, own, first, min(first + length, channels), Normalised{input, scale, shift, channels, pixels, row0},
            Weight{weight, channels, map0});
    float *into = sums + ((size_t)blockIdx.z * pixels + row0) * MAPS + map0;
    each_of_runs(rows, count, [&](int run, int v, int row, int column) {
        Values values;
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) values[i] = own.of_run(run, v * VECTOR + i);
        put_floats(into + (size_t)row * MAPS + column, values);
    });
}

// Grid: tiles of pixels, tiles of maps. Reads `parts` P N f32, writes P N values.
extern "C" __global__ void __launch_bounds__(THREADS, 2) pointwise_joined(
    const float *sums, store_t *out, float *partial, const Scalars *scalars, int site, int pixels, int parts, int training) {
    __shared__ Columns<ROWS, COLUMNS> columns;
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS, rows = min(ROWS, pixels - row0), count = min(COLUMNS, MAPS - map0);
    size_t first = (size_t)row0 * MAPS + map0;
    Sums<ROWS, COLUMNS> own;
    for (int part = 0; part < parts; ++part) {
        const float *from = sums + (size_t)part * pixels * MAPS + first;
        each_of_runs(rows, count, [&](int run, int v, int row, int column) {
            Values more = floats_at(from + (size_t)row * MAPS + column);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) own.of_run(run, v * VECTOR + i) += more[i];
        });
    }
    write_runs(own, columns, rows, count, out + first, Dropout(scalars, site), first, MAPS, map0, blockIdx.x,
               training ? partial : nullptr);
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

// The tile of d is never in shared memory: the weight's columns lie in such an order that a thread
// has runs of adjacent channels (`Sums`), which are always the same.
typedef Sums<ROWS, TILE_CHANNELS> Pulled;

// What a thread masks with is loaded a tile ahead, which shared memory has room for in bf16 only.
constexpr bool AHEAD = BF16;
// Whether the sums for gamma are of the input, and the mean is taken off at the end. A value in bf16
// has 8 bits, so that the sums in f32 lose nothing beside what its rounding has lost.
constexpr bool LATE_MEAN = BF16;

struct Back {
    union {
        struct {
            store_t weight[GROUP][TILE_CHANNELS + PAD];
            // One tile of dout is in use while the next is loaded, if two fit.
            store_t dout[TILES][ROWS][GROUP + PAD];
            store_t operand[ROWS][TILE_CHANNELS + PAD];
            // Registers have no room for these.
            alignas(16) float mean[TILE_CHANNELS], gamma[TILE_CHANNELS];
            // In bf16, the next tile of `input` and `into`.
            store_t ahead[2][AHEAD ? ROWS : 1][AHEAD ? TILE_CHANNELS + PAD : 4];
        };
        // Afterwards.
        alignas(16) float sums[2 * Pulled::SHARERS][TILE_CHANNELS + 4];
    };
};
static_assert(sizeof(Back) <= POINTWISE_BACK_SHARED, "the host knows how much shared memory there has to be");

// Calls `what` for each vector of LINES lines of WIDE elements; the threads take adjacent vectors.
template <int LINES, int WIDE, class What> __device__ __forceinline__ void each_vector(What what) {
    constexpr unsigned ACROSS = WIDE / VECTOR, TOTAL = LINES * ACROSS;
#pragma unroll 4
    for (unsigned from = 0; from < TOTAL; from += THREADS) {
        unsigned i = from + threadIdx.x;
        if (TOTAL % THREADS == 0 || i < TOTAL) what(int(i / ACROSS), int(i % ACROSS * VECTOR));
    }
}

// Each slice of pixels writes a share of the weight's gradient, slices x weight, in the weight's
// order, and of the sums for gamma and beta: partial[slice][channel][2]. Grid: tiles of channels,
// slices of `length` pixels. Sums of many maps need the registers of a whole multiprocessor.
extern "C" __global__ void __launch_bounds__(THREADS, GROUP > 128 ? 1 : 2) pointwise_back(
    const grad_t *dout, const store_t *weight, const store_t *input, const float *scale, const float *shift, const float *mean,
    const float *gamma, grad_t *into, float *partial, float *share, int map0, int pixels, int channels, int length) {
    DYNAMIC_SHARED(memory);
    Back &shared = *reinterpret_cast<Back *>(memory);
    constexpr int EACH = Pulled::RUN / VECTOR;
    int channel0 = blockIdx.x * TILE_CHANNELS, slice = blockIdx.y, maps = MAPS <= GROUP ? MAPS : min(GROUP, MAPS - map0);
    int first = slice * length, last = min(first + length, pixels);
    int column = Pulled::run_column(), count = min(TILE_CHANNELS, channels - channel0);
    // Which pixel is a row of the first product: two rows that eight threads write to `operand` at
    // once are four lines apart, and so in different banks.
    auto pixel_of = [](int row) { return (row & ~7) | (row & 1) << 2 | (row >> 1 & 3); };

    auto bring = [&](int row0) {
        auto &tile = shared.dout[(row0 - first) / ROWS % TILES];
        each_vector<ROWS, GROUP>([&](int row, int n) {
            bool there = row0 + row < last && n < maps;
            copy_async<PACK, true>(&tile[row][n], there ? dout + (size_t)(row0 + row) * MAPS + map0 + n : nullptr, dout);
        });
    };
    bring(first);
    copies_grouped();
    each_vector<GROUP, TILE_CHANNELS>([&](int n, int element) {
        bool there = n < maps && element < count;
        Pack values = there ? pack_at(weight + (size_t)(map0 + n) * channels + channel0 + element) : Pack::zeros();
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) shared.weight[n][Pulled::line_of(element + i)] = values[i];
    });
    for (int i = threadIdx.x; i < TILE_CHANNELS; i += THREADS) {
        bool there = i < count;
        shared.mean[i] = there ? mean[channel0 + i] : 0.0f, shared.gamma[i] = there ? gamma[channel0 + i] : 0.0f;
    }
    Values own_scale[EACH], own_shift[EACH];
    Masked masked[EACH];
    // The end of the pixels, or of none if the channel does not exist.
    int until[EACH];
#pragma unroll
    for (int v = 0; v < EACH; ++v) {
        int c = column + v * VECTOR;
        until[v] = c < count ? last : first;
        own_scale[v] = c < count ? floats_at(scale + channel0 + c) : Values{};
        own_shift[v] = c < count ? floats_at(shift + channel0 + c) : Values{};
    }
    // The distance between a thread's rows, in pixels.
    constexpr int APART = Pulled::RUNS > 1 ? BF16 ? 8 : 16 : 0;
    const int own_row = pixel_of(Pulled::run_row(0));
    const size_t own = (size_t)own_row * IN_STRIDE + channel0 + column;
    auto at = [&](int row0, int run, int v) { return (size_t)row0 * IN_STRIDE + own + run * APART * IN_STRIDE + v * VECTOR; };
    auto there = [&](int row0, int run, int v) { return row0 + own_row + run * APART < until[v]; };
    // Starts to load what is masked with: the warps with the same rows load whole lines of them.
    auto look_ahead = [&](int row0) {
#if BF16
        constexpr int SHARE = Pulled::ACROSS * 32, OF_LINE = TILE_CHANNELS / VECTOR;
#pragma unroll
        for (int i = 0; i < Pulled::HIGH * OF_LINE / SHARE; ++i) {
            int number = i * SHARE + threadIdx.x % SHARE, row = Pulled::top() + number / OF_LINE, c = number % OF_LINE * VECTOR;
            bool loads = row0 + row < last && c < count;
            size_t from = (size_t)(row0 + row) * IN_STRIDE + channel0 + c;
            copy_async<PACK, true>(&shared.ahead[0][row][c], loads ? input + from : nullptr, input);
            copy_async<PACK, true>(&shared.ahead[1][row][c], loads ? into + from : nullptr, input);
        }
#endif
        copies_grouped();
    };
    if (AHEAD) look_ahead(first);
    Sums<GROUP, TILE_CHANNELS> gradient;
    for (int row0 = first; row0 < last; row0 += ROWS) {
        // All but what was last asked for, which is what the thread masks with.
        if (AHEAD && TILES > 1) copies_done_but<1>();
        else copies_done();
        __syncthreads();
        if (TILES > 1 && row0 + ROWS < last) bring(row0 + ROWS);
        copies_grouped();
        auto &tile = shared.dout[(row0 - first) / ROWS % TILES];
        // If there is no pixel, dout is 0, and so is its product; the product of a channel that does
        // not exist is not written.
        Pack x[Pulled::RUNS][EACH], g[Pulled::RUNS][EACH];
        if (!AHEAD) {
#pragma unroll
            for (int run = 0; run < Pulled::RUNS; ++run)
#pragma unroll
                for (int v = 0; v < EACH; ++v) {
                    x[run][v] = there(row0, run, v) ? pack_at(input + at(row0, run, v)) : Pack::zeros();
                    g[run][v] = there(row0, run, v) ? pack_at(into + at(row0, run, v)) : Pack::zeros();
                }
        }
        Pulled pulled;
        pulled.template add<true, false>(
            GROUP, [&](int row) { return tile[pixel_of(row)]; }, [&](int n) { return shared.weight[n]; });
        if (AHEAD) {
            copies_done_but<1>();
            Pulled::rows_meet();
        }
#pragma unroll
        for (int v = 0; v < EACH; ++v) {
            Values center = {}, factor = floats_at(shared.gamma + column + v * VECTOR);
            if (!LATE_MEAN) center = floats_at(shared.mean + column + v * VECTOR);
#pragma unroll
            for (int run = 0; run < Pulled::RUNS; ++run) {
                if (AHEAD) {
                    int row = own_row + run * APART, c = column + v * VECTOR;
                    x[run][v] = pack_at(&shared.ahead[0][row][c]);
                    g[run][v] = pack_at(&shared.ahead[1][row][c]);
                }
                Values z, d;
#pragma unroll
                for (int j = 0; j < VECTOR; ++j) {
                    float value = x[run][v][j];
                    z[j] = fmaf(value, own_scale[v][j], own_shift[v][j]);
                    d[j] = fmaf(factor[j], masked[v].add(j, z[j], pulled.of_run(run, v * VECTOR + j), value - center[j]), g[run][v][j]);
                }
                put_pack(&shared.operand[own_row + run * APART][column + v * VECTOR], Pack::of<true>(z));
                if (there(row0, run, v)) put_global(into + at(row0, run, v), Pack::of<false>(d));
            }
        }
        __syncthreads();
        if (AHEAD && row0 + ROWS < last) look_ahead(row0 + ROWS);
        gradient.template add<false, false>(
            ROWS, [&](int row) { return tile[row]; }, [&](int row) { return shared.operand[row]; });
        // The only tile of dout is not read any more.
        if (TILES == 1) {
            __syncthreads();
            if (row0 + ROWS < last) bring(row0 + ROWS);
        }
    }
    __syncthreads();
    if (LATE_MEAN) {
#pragma unroll
        for (int v = 0; v < EACH; ++v) masked[v].about(floats_at(shared.mean + column + v * VECTOR));
        __syncthreads();
    }
#pragma unroll
    for (int v = 0; v < EACH; ++v) masked[v].template keep<Pulled::SHARERS, TILE_CHANNELS>(shared.sums, Pulled::sharer(), column + v * VECTOR);
    __syncthreads();
    Masked::add_up<Pulled::SHARERS, TILE_CHANNELS>(shared.sums, count, channel0, channels, slice, partial);
#pragma unroll
    for (int i = 0; i < gradient.COUNT; ++i) {
        int n = gradient.row(i), k = gradient.column(i);
        if (n < maps && k < count) share[((size_t)slice * MAPS + map0 + n) * channels + channel0 + k] = gradient.value[i];
    }
}
