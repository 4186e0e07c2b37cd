// Batch normalisation around the convolutions: statistics from tiles' moments, BN as one
// multiply-add for each consumer, gradients of gamma and beta from tiles' sums, and BN undone.
//
//     scale = gamma / sqrt(variance + eps), shift = beta - mean * scale
//     dx = inverse * (g - mean(g) - xhat * mean(g * xhat))
//
// All kernels are small, over channels, except `finish` and `undo`, which pass pixels x channels
// once: 2 reads and 1 write for each value.

// The two numbers of a tile and a channel; the tiles write them as tile x channel x 2.
__device__ __forceinline__ float2 two_of(const float *partial, int tile, int channels, int channel) {
    const float *at = partial + ((size_t)tile * channels + channel) * 2;
    return *reinterpret_cast<const float2 *>(ALIGNED(at, 8));
}

// How `prepare` and `gather` read: a block has `lanes` adjacent channels, a power of two up to 32,
// and its threads share their tiles. Four lanes read a sector of memory. Most launches take the
// time of a few loads, so all that do not wait for each other are started first.
constexpr int LOADED = 8, WARPS = GATHER_THREADS / 32;

// The exponent of a power of two: dividing by one takes as long as several loads' start.
__device__ __forceinline__ int bits_of(int power) { return 31 - __clz(power); }

// Calls `add(tile, numbers)` for the thread's tiles, the loads of LOADED of which run at once. The
// first are started before anything else.
template <class Add>
__device__ __forceinline__ void each_tile(const float *partial, int tiles, int channels, int channel, int lanes, Add add) {
    int bits = bits_of(lanes), step = GATHER_THREADS >> bits, from = threadIdx.x >> bits;
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
struct Totals {
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

// Mean and variance (biased) of a channel from its tiles' means and sums of squared deviations.
// Tiles have `rows` rows; the last has the remainder. With d = a tile's mean minus that of the
// first tile:
//
//     mean = first + sum(rows d) / pixels
//     variance = sum(squares + rows d d) / pixels - (sum(rows d) / pixels)^2
//
// The difference loses little: either all d are 0, or they contribute to the variance. The error is
// at most the number of tiles times the rounding of f64.
struct Moments {
    double mean, variance;
    // Only the first thread with a channel has valid values.
    __device__ __forceinline__ Moments(Totals &totals, const float *partial, int channel, int channels, int lanes, int tiles, int rows, int pixels) {
        double first = two_of(partial, 0, channels, channel).x, off = 0, squares = 0;
        double share = 1.0 / pixels, full = rows, rest = pixels - (tiles - 1) * rows;
        each_tile(partial, tiles, channels, channel, lanes, [&](int tile, float2 own) {
            double count = tile < tiles - 1 ? full : rest, d = own.x - first;
            off += count * d;
            squares += own.y + count * d * d;
        });
        totals.add(off, squares, lanes);
        off *= share;
        mean = first + off;
        variance = squares * share - off * off;
    }
};

// BN of a consumer as a multiply-add: from the batch's statistics, which update its running ones,
// or, if not training, from the running ones. The statistics of the `count` channels from `first`
// on (mean, variance (biased), inverse deviation) are computed here, from the moments of their
// producer's tiles. `running` has its means, then its variances. Grid: a block for each `lanes` of
// the `count` channels, then a thread for each of the others.
extern "C" __global__ void __launch_bounds__(GATHER_THREADS) prepare(
    const float *partial, const float *gamma, const float *beta, float *mean, float *variance, float *inverse,
    float *running, float *scale, float *shift, int first, int count, int tiles, int rows, int pixels, int channels,
    int training, int lanes) {
    __shared__ Totals totals;
    int t = threadIdx.x, measuring = (count + lanes - 1) >> bits_of(lanes), fresh = blockIdx.x * lanes + (t & (lanes - 1));
    bool measures = (int)blockIdx.x < measuring;
    int c = ((int)blockIdx.x - measuring) * GATHER_THREADS + t;
    if (c >= first) c += count;
    if (measures) c = t < lanes && fresh < count ? first + fresh : channels;
    float factor, constant, moving_mean, moving_variance, m, v, deviation = 0.0f;
    if (c < channels) {
        factor = gamma[c], constant = beta[c], moving_mean = running[c], moving_variance = running[channels + c];
        if (training && !measures) m = mean[c], v = variance[c], deviation = inverse[c];
    }
    if (measures) {
        // Beyond the last channel, that channel's sums are computed again.
        Moments own(totals, partial, min(fresh, count - 1), count, lanes, tiles, rows, pixels);
        m = (float)own.mean, v = (float)own.variance, deviation = (float)rsqrt(own.variance + EPSILON);
        if (c < channels) mean[c] = m, variance[c] = v, inverse[c] = deviation;
    }
    if (c >= channels) return;
    float s = factor * deviation;
    if (training) {
        float unbiased = (float)pixels / (float)(max(pixels, 2) - 1), moving = (float)MOMENTUM;
        running[c] = moving_mean + moving * (m - moving_mean);
        running[channels + c] = moving_variance + moving * (v * unbiased - moving_variance);
    } else {
        m = moving_mean;
        s = factor / sqrtf(moving_variance + (float)EPSILON);
    }
    scale[c] = s;
    shift[c] = constant - m * s;
}

// Completes a backward pass through a BN. Adds the tiles' sums to the gradients of gamma and beta,
// and to the sums that undoing BN needs: of g, and of g times the normalised value, where g
// includes gamma; if `add` is 0, this is the first consumer, and sets them. Adds the slices' shares
// of a weight's gradient to it, always in the same order: `parts` threads sum each value, a power
// of two. A share is maps x `taps` x `across` channels; the gradient has the weight's order, maps x
// channels x taps. Grid: a block for each `lanes` channels, then a thread for each of the weight's
// `count` values and parts.
extern "C" __global__ void __launch_bounds__(GATHER_THREADS) gather(
    const float *partial, const float *gamma, const float *inverse, float *dgamma, float *dbeta, float *plain,
    float *normalised, int tiles, int channels, int add, int lanes, const float *share, float *gradient, int slices, int count,
    int taps, int across, int parts) {
    __shared__ union {
        Totals totals;
        float sum[GATHER_THREADS];
    } shared;
    int t = threadIdx.x, blocks = (channels + lanes - 1) >> bits_of(lanes);
    if ((int)blockIdx.x >= blocks) {
        int values = GATHER_THREADS >> bits_of(parts), part = t >> bits_of(values);
        int value = ((int)blockIdx.x - blocks) * values + (t & (values - 1));
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
            shared.sum[t] = sum;
            __syncthreads();
            for (int other = 1; adds && other < parts; ++other) sum += shared.sum[other * values + t];
        }
        if (adds) gradient[at] = before + sum;
        return;
    }
    int c = blockIdx.x * lanes + (t & (lanes - 1));
    bool adds = t < lanes && c < channels;
    float factor, deviation, before[4] = {};
    if (adds) {
        factor = gamma[c], deviation = inverse[c], before[0] = dgamma[c], before[1] = dbeta[c];
        if (add) before[2] = plain[c], before[3] = normalised[c];
    }
    double slope = 0, bias = 0;
    each_tile(partial, tiles, channels, min(c, channels - 1), lanes, [&](int, float2 own) {
        slope += own.x;
        bias += own.y;
    });
    shared.totals.add(slope, bias, lanes);
    if (!adds) return;
    float dscale = (float)(slope * deviation), dbias = (float)bias;
    dgamma[c] = before[0] + dscale;
    dbeta[c] = before[1] + dbias;
    plain[c] = before[2] + factor * dbias;
    normalised[c] = before[3] + factor * dscale;
}

// The coefficients that undo BN, for each channel: of g, of the deviation, and the constant.
struct Undo {
    float scale, slope, shift;
    __device__ Undo(float scale, float slope, float shift) : scale(scale), slope(slope), shift(shift) {}
    __device__ Undo(float inverse, float gamma, float plain, float normalised, int pixels) {
        float share = 1.0f / (float)pixels;
        scale = inverse * gamma;
        slope = -inverse * inverse * normalised * share;
        shift = -inverse * plain * share;
    }
    __device__ float of(float g, float deviation) const { return fmaf(g, scale, fmaf(deviation, slope, shift)); }
};

// Undo for a vector of channels.
struct Undone {
    Values mean, scale, slope, shift;
    __device__ __forceinline__ Undone(const float *mean, const float *inverse, const Values &gamma, const float *plain,
                                      const float *normalised, int pixels)
        : mean(floats_at(mean)) {
        Values of_inverse = floats_at(inverse), of_plain = floats_at(plain), of_normalised = floats_at(normalised);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) {
            Undo own(of_inverse[i], gamma[i], of_plain[i], of_normalised[i], pixels);
            scale[i] = own.scale, slope[i] = own.slope, shift[i] = own.shift;
        }
    }
    __device__ __forceinline__ Pack of(const Pack &g, const Pack &x, const Dropout &dropout, size_t number) const {
        Values values;
#pragma unroll
        for (int i = 0; i < VECTOR; ++i)
            values[i] = Undo{scale[i], slope[i], shift[i]}.of(g[i], x[i] - mean[i]) * dropout.factor(number + i);
        return Pack::of<false>(values);
    }
};

// How a thread passes pixels x `count` channels: one vector of channels, in every `step`-th pixel.
// The threads' vectors are adjacent. So a thread loads what it has to know of its channels once.
struct Sweep {
    int pixel, step, column;
    __device__ __forceinline__ Sweep(int count) {
        int across = count / VECTOR, i = blockIdx.x * THREADS + threadIdx.x;
        step = gridDim.x * THREADS / across;
        pixel = i / across;
        column = i % across * VECTOR;
    }
    // The threads that are left over have no pixels.
    __device__ __forceinline__ bool idle(int pixels) const { return pixel >= min(step, pixels); }
};

// The next vectors of a sweep over `g` and `x`, pixels x `stride`: SWEPT of them are loaded at once.
struct Swept {
    Pack g[SWEPT], x[SWEPT];
    __device__ __forceinline__ void load(const Sweep &own, const grad_t *from_g, const store_t *from_x, int stride, int pixels) {
#pragma unroll
        for (int i = 0; i < SWEPT; ++i) {
            size_t p = own.pixel + i * own.step;
            if (p >= pixels) break;
            g[i] = pack_at(from_g + p * stride);
            x[i] = pack_at(from_x + p * stride);
        }
    }
    // Writes them undone, pixels x `count`, and takes the sweep on. Returns whether it goes on.
    __device__ __forceinline__ bool put(Sweep &own, const Undone &undone, grad_t *into, int count, int pixels, const Dropout &dropout) {
#pragma unroll
        for (int i = 0; i < SWEPT; ++i) {
            size_t p = own.pixel + i * own.step, at = p * count + own.column;
            if (p < pixels) put_pack(into + at, undone.of(g[i], x[i], dropout, at));
        }
        own.pixel += SWEPT * own.step;
        return own.pixel < pixels;
    }
};

// Undoes the BN of `count` columns of a block's buffer (from `first`, pixels x stride), after all
// their consumers. Their gradient goes to `into` (pixels x count), with the mask of the dropout
// that the maps had. Grid: enough threads for a pixel, as for `undo`.
extern "C" __global__ void __launch_bounds__(THREADS, 2) finish(
    const grad_t *g, const store_t *x, const float *mean, const float *inverse, const float *plain,
    const float *normalised, grad_t *into, const Scalars *scalars, int stride, int first, int count, int pixels, int site) {
    Sweep own(count);
    if (own.idle(pixels)) return;
    int c = first + own.column;
    Swept swept;
    swept.load(own, g + c, x + c, stride, pixels);
    Values ones;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) ones[i] = 1.0f;
    Undone undone(mean + c, inverse + c, ones, plain + c, normalised + c, pixels);
    Dropout dropout(scalars, site);
    while (swept.put(own, undone, into, count, pixels, dropout)) swept.load(own, g + c, x + c, stride, pixels);
}

// Undoes BN in place for bottleneck maps, whose g does not include gamma yet: pixels x maps.
extern "C" __global__ void __launch_bounds__(THREADS, 2) undo(
    grad_t *dy, const store_t *y, const float *mean, const float *inverse, const float *gamma, const float *plain,
    const float *normalised, const Scalars *scalars, int maps, int pixels, int site) {
    Sweep own(maps);
    if (own.idle(pixels)) return;
    int c = own.column;
    Swept swept;
    swept.load(own, dy + c, y + c, maps, pixels);
    Undone undone(mean + c, inverse + c, parameters_at(gamma + c), plain + c, normalised + c, pixels);
    Dropout dropout(scalars, site);
    while (swept.put(own, undone, dy, maps, pixels, dropout)) swept.load(own, dy + c, y + c, maps, pixels);
}

// The coefficients of Undo, for a kernel that undoes BN as it loads: scale, slope, shift, mean,
// `maps` each.
extern "C" __global__ void undo_numbers(
    const float *mean, const float *inverse, const float *gamma, const float *plain, const float *normalised,
    float *into, int maps, int pixels) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= maps) return;
    Undo undo(inverse[c], gamma[c], plain[c], normalised[c], pixels);
    into[c] = undo.scale;
    into[maps + c] = undo.slope;
    into[2 * maps + c] = undo.shift;
    into[3 * maps + c] = mean[c];
}
