// Batch normalisation around the convolutions: statistics from tiles' moments, BN as one
// multiply-add for each consumer, gradients of gamma and beta from tiles' sums, and BN undone.
//
//     scale = gamma / sqrt(variance + eps), shift = beta - mean * scale
//     dx = inverse * (g - mean(g) - xhat * mean(g * xhat))
//
// All kernels are small, over channels, except `finish` and `undo`, which pass pixels x channels
// once: 2 reads and 1 write for each value.

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
    __device__ __forceinline__ Moments(Totals<GATHER_THREADS> &totals, const float *partial, int channel, int channels, int lanes, int tiles, int rows, int pixels) {
        double first = two_of(partial, 0, channels, channel).x, off = 0, squares = 0;
        double share = 1.0 / pixels, full = rows, rest = pixels - (tiles - 1) * rows;
        each_tile<GATHER_THREADS>(partial, tiles, channels, channel, lanes, [&](int tile, float2 own) {
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
// or, if not training or if it is frozen, from the running ones. The statistics of the `count`
// channels from `first` on (mean, variance (biased), inverse deviation) are computed here, from the
// moments of their producer's tiles. `running` has its means, then its variances. Grid: a block for
// each `lanes` of the `count` channels, then a thread for each of the others.
// The backward pass multiplies by gamma and, once for all consumers, by the batch's inverse
// deviation. For a frozen BN it takes `effective` for gamma: with it the product is the scale.
extern "C" __global__ void __launch_bounds__(GATHER_THREADS) prepare(
    const float *partial, const float *gamma, const float *beta, float *mean, float *variance, float *inverse,
    float *running, float *scale, float *shift, float *effective, int first, int count, int tiles, int rows, int pixels,
    int channels, int training, int frozen, int lanes) {
    __shared__ Totals<GATHER_THREADS> totals;
    int t = threadIdx.x, measuring = (count + lanes - 1) >> bits_of(lanes), fresh = blockIdx.x * lanes + (t & (lanes - 1));
    bool measures = (int)blockIdx.x < measuring;
    int c = ((int)blockIdx.x - measuring) * GATHER_THREADS + t;
    if (c >= first) c += count;
    if (measures) c = t < lanes && fresh < count ? first + fresh : channels;
    float factor, constant, moving_mean, moving_variance, m, v, deviation = 0.0f;
    if (c < channels) {
        factor = gamma[c], constant = beta[c], moving_mean = running[c], moving_variance = running[channels + c];
        if (training && !measures) deviation = inverse[c];
        if (training && !measures && !frozen) m = mean[c], v = variance[c];
    }
    if (measures) {
        // Beyond the last channel, that channel's sums are computed again.
        Moments own(totals, partial, min(fresh, count - 1), count, lanes, tiles, rows, pixels);
        m = (float)own.mean, v = (float)own.variance, deviation = (float)rsqrt(own.variance + EPSILON);
        if (c < channels) mean[c] = m, variance[c] = v, inverse[c] = deviation;
    }
    if (c >= channels) return;
    float s = factor * deviation;
    if (training && !frozen) {
        float unbiased = (float)pixels / (float)(max(pixels, 2) - 1), moving = (float)MOMENTUM;
        running[c] = moving_mean + moving * (m - moving_mean);
        running[channels + c] = moving_variance + moving * (v * unbiased - moving_variance);
    } else {
        m = moving_mean;
        s = factor / sqrtf(moving_variance + (float)EPSILON);
        if (training) effective[c] = s / deviation;
    }
    scale[c] = s;
    shift[c] = constant - m * s;
}

// Completes a backward pass through a BN, and the gradient of a weight (gather.cuh). Grid: a block for
// each `lanes` channels, then a thread for each of the weight's `count` values and parts.
extern "C" __global__ void __launch_bounds__(GATHER_THREADS) gather(
    const float *partial, const float *gamma, const float *inverse, float *dgamma, float *dbeta, float *plain,
    float *normalised, int tiles, int channels, int add, int lanes, const float *share, float *gradient, int slices, int count,
    int taps, int across, int parts) {
    __shared__ union {
        Totals<GATHER_THREADS> totals;
        float sums[GATHER_THREADS];
    } shared;
    int blocks = (channels + lanes - 1) >> bits_of(lanes), own = blockIdx.x;
    Shares shares{share, gradient, slices, count, taps, across, parts};
    Passed passed{partial, gamma, inverse, dgamma, dbeta, plain, normalised, tiles, channels, add};
    if (own >= blocks) shares.add(shared.sums, own - blocks);
    else passed.gather(shared.totals, own, lanes, channels);
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
    __device__ __forceinline__ Undone(const float *mean, const float *inverse, const Values &gamma, const Values &plain,
                                      const Values &normalised, int pixels)
        : mean(floats_at(mean)) {
        Values of_inverse = floats_at(inverse);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) {
            Undo own(of_inverse[i], gamma[i], plain[i], normalised[i], pixels);
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
// `others` blocks before them do something else.
struct Sweep {
    int pixel, step, column;
    __device__ __forceinline__ Sweep(int count, int others) {
        int across = count / VECTOR, i = ((int)blockIdx.x - others) * THREADS + threadIdx.x;
        step = ((int)gridDim.x - others) * THREADS / across;
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
// that the maps had. The last consumer, if it read all channels up to these, may have left the sums
// of `tiles`: they are put together here for all of them, `lanes` a block, in the first blocks,
// as is the gradient of its weight, with `values` values. The sums that undo BN of these columns, at
// most FINISHED, every block that sweeps computes itself, since no block waits for another. Grid:
// these blocks, then enough threads for a pixel, as for `undo`.
extern "C" __global__ void __launch_bounds__(THREADS, 2) finish(
    const grad_t *g, const store_t *x, const float *mean, const float *inverse, float *plain,
    float *normalised, grad_t *into, const Scalars *scalars, int stride, int first, int count, int pixels, int site,
    const float *partial, const float *gamma, float *dgamma, float *dbeta, int tiles, int lanes,
    const float *share, float *gradient, int slices, int values, int taps, int across, int parts) {
    __shared__ union {
        Totals<THREADS> totals;
        float sums[THREADS];
    } shared;
    __shared__ struct { alignas(16) float plain[FINISHED], normalised[FINISHED]; } left;
    Shares shares{share, gradient, slices, values, taps, across, parts};
    Passed passed{partial, gamma, inverse, dgamma, dbeta, plain, normalised, tiles, first + count, 1};
    int groups = tiles > 0 ? (passed.channels + lanes - 1) >> bits_of(lanes) : 0, others = groups + shares.blocks<THREADS>();
    if ((int)blockIdx.x < others) {
        if ((int)blockIdx.x < groups) passed.gather(shared.totals, blockIdx.x, lanes, first);
        else shares.add(shared.sums, (int)blockIdx.x - groups);
        return;
    }
    Sweep own(count, others);
    int c = first + own.column;
    Swept swept;
    if (!own.idle(pixels)) swept.load(own, g + c, x + c, stride, pixels);
    if (tiles > 0) passed.sums_of(shared.totals, first, count, left.plain, left.normalised);
    if (own.idle(pixels)) return;
    Values ones, of_plain, of_normalised;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) ones[i] = 1.0f;
    if (tiles > 0) of_plain = floats_at(left.plain + own.column), of_normalised = floats_at(left.normalised + own.column);
    else of_plain = floats_at(plain + c), of_normalised = floats_at(normalised + c);
    Undone undone(mean + c, inverse + c, ones, of_plain, of_normalised, pixels);
    Dropout dropout(scalars, site);
    while (swept.put(own, undone, into, count, pixels, dropout)) swept.load(own, g + c, x + c, stride, pixels);
}

// Undoes BN in place for bottleneck maps, whose g does not include gamma yet: pixels x maps. Its
// first blocks add the shares of a weight's gradient, with `values` values.
extern "C" __global__ void __launch_bounds__(THREADS, 2) undo(
    grad_t *dy, const store_t *y, const float *mean, const float *inverse, const float *gamma, const float *plain,
    const float *normalised, const Scalars *scalars, int maps, int pixels, int site,
    const float *share, float *gradient, int slices, int values, int taps, int across, int parts) {
    __shared__ float sums[THREADS];
    Shares shares{share, gradient, slices, values, taps, across, parts};
    int others = shares.blocks<THREADS>();
    if ((int)blockIdx.x < others) {
        shares.add(sums, blockIdx.x);
        return;
    }
    Sweep own(maps, others);
    if (own.idle(pixels)) return;
    int c = own.column;
    Swept swept;
    swept.load(own, dy + c, y + c, maps, pixels);
    Undone undone(mean + c, inverse + c, parameters_at(gamma + c), floats_at(plain + c), floats_at(normalised + c), pixels);
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
