// What tiles and slices leave for a pass backward is put together here: the sums of a BN's channels, and slices' shares of a
// weight's gradient. `gather` does it in a launch of its own; kernels that are launched anyway before the result is needed do
// it on the way, in their first blocks, so that hardly any launch is only for that. Each sum has one order, whoever computes it.

// The two numbers of a tile and a channel; the tiles write them as tile x channel x 2.
__device__ __forceinline__ float2 two_of(const float *partial, int tile, int channels, int channel) {
    const float *at = partial + ((size_t)tile * channels + channel) * 2;
    return *reinterpret_cast<const float2 *>(ALIGNED(at, 8));
}

// How the OWN threads of a block read: it has `lanes` adjacent channels, a power of two up to 32,
// and its threads share their tiles. Four lanes read a sector of memory. Most launches take the
// time of a few loads, so all that do not wait for each other are started first.
constexpr int LOADED = 8;

// The exponent of a power of two: dividing by one takes as long as several loads' start.
__device__ __forceinline__ int bits_of(int power) { return 31 - __clz(power); }

// Calls `add(tile, numbers)` for the thread's tiles. The loads of LOADED tiles run at once, and the
// first are started before anything else.
template <int OWN, class Add>
__device__ __forceinline__ void each_tile(const float *partial, int tiles, int channels, int channel, int lanes, Add add) {
    int bits = bits_of(lanes), step = OWN >> bits, from = threadIdx.x >> bits;
    float2 loaded[LOADED];
    auto load = [&] {
#pragma unroll
        for (int i = 0; i < LOADED; ++i)
            loaded[i] = from + i * step < tiles ? two_of(partial, from + i * step, channels, channel) : float2{};
    };
    load();
    while (true) {
#pragma unroll
        for (int i = 0; i < LOADED; ++i)
            if (from + i * step < tiles) add(from + i * step, loaded[i]);
        from += LOADED * step;
        if (from >= tiles) return;
        load();
    }
}

// Two sums of each of a block's channels, in f64.
template <int OWN> struct Totals {
    static constexpr int WARPS = OWN / 32;
    double first[WARPS][32], second[WARPS][32];
    // From those of the threads with this channel. The first thread with a channel gets its sums.
    __device__ __forceinline__ void add(double &one, double &other, int lanes) {
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        for (int step = lanes; step < 32; step *= 2) {
            one += __shfl_xor_sync(~0u, one, step);
            other += __shfl_xor_sync(~0u, other, step);
        }
        if (lane < lanes) first[warp][lane] = one, second[warp][lane] = other;
        __syncthreads();
        if ((int)threadIdx.x >= lanes) return;
        // Four sums, so that few additions wait for each other.
        double ones[4] = {}, others[4] = {};
#pragma unroll
        for (int i = 0; i < WARPS; ++i) ones[i % 4] += first[i][lane], others[i % 4] += second[i][lane];
        one = (ones[0] + ones[1]) + (ones[2] + ones[3]);
        other = (others[0] + others[1]) + (others[2] + others[3]);
    }
};

// A backward pass through a BN, whose tiles have left their sums. They are added to the gradients
// of gamma and beta, and to the sums that undoing BN needs: of g, and of g times the normalised
// value, where g includes gamma; if `add` is 0, this is the first consumer, and sets them.
struct Passed {
    const float *partial, *gamma, *inverse;
    float *dgamma, *dbeta, *plain, *normalised;
    int tiles, channels, add;

    // For the `lanes` channels of group number `group`; all OWN threads take part. Of channels from
    // `done` on, nobody needs the sums that undo BN.
    template <int OWN> __device__ __forceinline__ void gather(Totals<OWN> &totals, int group, int lanes, int done) const {
        int t = threadIdx.x, c = group * lanes + (t & (lanes - 1));
        bool adds = t < lanes && c < channels, keeps = c < done;
        float factor, deviation, before[4] = {};
        if (adds) {
            factor = gamma[c], deviation = inverse[c], before[0] = dgamma[c], before[1] = dbeta[c];
            if (add && keeps) before[2] = plain[c], before[3] = normalised[c];
        }
        double slope = 0, bias = 0;
        each_tile<OWN>(partial, tiles, channels, min(c, channels - 1), lanes, [&](int, float2 own) {
            slope += own.x;
            bias += own.y;
        });
        totals.add(slope, bias, lanes);
        if (!adds) return;
        float dscale = (float)(slope * deviation), dbias = (float)bias;
        dgamma[c] = before[0] + dscale;
        dbeta[c] = before[1] + dbias;
        if (!keeps) return;
        plain[c] = before[2] + factor * dbias;
        normalised[c] = before[3] + factor * dscale;
    }
    // What `gather` would make of the sums that undo BN of `count` channels from `first` on, at most
    // MOST: for a block that cannot wait for it. All OWN threads take part; ends with a barrier.
    template <int OWN, int MOST>
    __device__ __forceinline__ void sums_of(Totals<OWN> &totals, int first, int count, float (&of_g)[MOST], float (&of_normalised)[MOST]) const {
        int lanes = count > 16 ? 32 : count > 8 ? 16 : 8, lane = threadIdx.x & (lanes - 1);
        for (int from = 0; from < count; from += lanes) {
            int c = first + min(from + lane, count - 1);
            float factor = gamma[c], deviation = inverse[c], before[2] = {plain[c], normalised[c]};
            double slope = 0, bias = 0;
            each_tile<OWN>(partial, tiles, channels, c, lanes, [&](int, float2 own) {
                slope += own.x;
                bias += own.y;
            });
            totals.add(slope, bias, lanes);
            if ((int)threadIdx.x < lanes && from + lane < count) {
                of_g[from + lane] = before[0] + factor * (float)bias;
                of_normalised[from + lane] = before[1] + factor * (float)(slope * deviation);
            }
            __syncthreads();
        }
    }
};

// Slices' shares of the gradient of a weight with `count` values, which are added to it, always in
// the same order: `parts` threads sum each value, a power of two. A share is maps x `taps` x
// `across` channels; the gradient has the weight's order, maps x channels x taps.
struct Shares {
    const float *share;
    float *gradient;
    int slices, count, taps, across, parts;

    // How many blocks of OWN threads add them.
    template <int OWN> __device__ __forceinline__ int blocks() const { return (count * parts + OWN - 1) / OWN; }
    // The values of one of these blocks.
    template <int OWN> __device__ __forceinline__ void add(float (&sums)[OWN], int block) const {
        int t = threadIdx.x, values = OWN >> bits_of(parts), part = t >> bits_of(values);
        int value = block * values + (t & (values - 1));
        bool adds = value < count && part == 0;
        int at = value;
        if (taps > 1) {
            int map = value / (taps * across), tap = value / across % taps, channel = value % across;
            at = (map * across + channel) * taps + tap;
        }
        float before = adds ? gradient[at] : 0.0f, sum = 0.0f;
        for (int from = value < count ? part : slices; from < slices; from += LOADED * parts) {
            float loaded[LOADED];
#pragma unroll
            for (int i = 0; i < LOADED; ++i)
                loaded[i] = from + i * parts < slices ? share[(size_t)(from + i * parts) * count + value] : 0.0f;
#pragma unroll
            for (int i = 0; i < LOADED; ++i) sum += loaded[i];
        }
        if (parts > 1) {
            sums[t] = sum;
            __syncthreads();
            for (int other = 1; adds && other < parts; ++other) sum += sums[other * values + t];
        }
        if (adds) gradient[at] = before + sum;
    }
};
