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

// Two sums over all threads of a block, in f64. Thread 0 gets them.
struct Totals {
    double first[REDUCTION_THREADS], second[REDUCTION_THREADS];
    __device__ __forceinline__ void add(double one, double other) {
        int t = threadIdx.x;
        first[t] = one, second[t] = other;
        for (int half = REDUCTION_THREADS / 2; half > 0; half /= 2) {
            __syncthreads();
            if (t < half) first[t] += first[t + half], second[t] += second[t + half];
        }
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
    // Only thread 0 has valid values.
    __device__ __forceinline__ Moments(Totals &totals, const float *partial, int channel, int channels, int tiles, int rows, int pixels) {
        double first = two_of(partial, 0, channels, channel).x, off = 0, squares = 0;
#pragma unroll 4
        for (int tile = threadIdx.x; tile < tiles; tile += REDUCTION_THREADS) {
            float2 own = two_of(partial, tile, channels, channel);
            double count = min(rows, pixels - tile * rows), d = own.x - first;
            off += count * d;
            squares += own.y + count * d * d;
        }
        totals.add(off, squares);
        if (threadIdx.x > 0) return;
        off = totals.first[0] / pixels;
        mean = first + off;
        variance = totals.second[0] / pixels - off * off;
    }
};

// BN of a consumer as a multiply-add: from the batch's statistics, which update its running ones,
// or, if not training, from the running ones. The statistics of the `count` channels from `first`
// on (mean, variance (biased), inverse deviation) are computed here, from the moments of their
// producer's tiles. `running` has its means, then its variances. Grid: a block for each of the
// `count` channels, then a thread for each of the others.
extern "C" __global__ void __launch_bounds__(REDUCTION_THREADS) prepare(
    const float *partial, const float *gamma, const float *beta, float *mean, float *variance, float *inverse,
    float *running, float *scale, float *shift, int first, int count, int tiles, int rows, int pixels, int channels,
    int training) {
    __shared__ Totals totals;
    int c = ((int)blockIdx.x - count) * REDUCTION_THREADS + (int)threadIdx.x;
    if (c >= first) c += count;
    if ((int)blockIdx.x < count) {
        Moments own(totals, partial, blockIdx.x, count, tiles, rows, pixels);
        if (threadIdx.x > 0) return;
        c = first + blockIdx.x;
        mean[c] = (float)own.mean;
        variance[c] = (float)own.variance;
        inverse[c] = (float)(1.0 / sqrt(own.variance + EPSILON));
    }
    if (c >= channels) return;
    float m, s;
    if (training) {
        float unbiased = (float)pixels / (float)(max(pixels, 2) - 1), moving = (float)MOMENTUM;
        m = mean[c];
        s = gamma[c] * inverse[c];
        running[c] += moving * (m - running[c]);
        running[channels + c] += moving * (variance[c] * unbiased - running[channels + c]);
    } else {
        m = running[c];
        s = gamma[c] / sqrtf(running[channels + c] + (float)EPSILON);
    }
    scale[c] = s;
    shift[c] = beta[c] - m * s;
}

// Completes a backward pass through a BN. Adds the tiles' sums to the gradients of gamma and beta,
// and to the sums that undoing BN needs: of g, and of g times the normalised value, where g
// includes gamma; if `add` is 0, this is the first consumer, and sets them. Adds the slices' shares
// of a weight's gradient to it, first to last. A share is maps x `taps` x `across` channels; the
// gradient has the weight's order, maps x channels x taps. Grid: a block for each channel, then a
// thread for each of the weight's `count` values.
extern "C" __global__ void __launch_bounds__(REDUCTION_THREADS) gather(
    const float *partial, const float *gamma, const float *inverse, float *dgamma, float *dbeta, float *plain,
    float *normalised, int tiles, int channels, int add, const float *share, float *gradient, int slices, int count,
    int taps, int across) {
    __shared__ Totals totals;
    int t = threadIdx.x, c = blockIdx.x;
    if (c >= channels) {
        int i = (c - channels) * REDUCTION_THREADS + t;
        if (i >= count) return;
        float sum = 0.0f;
#pragma unroll 8
        for (int slice = 0; slice < slices; ++slice) sum += share[(size_t)slice * count + i];
        int map = i / (taps * across), tap = i / across % taps, channel = i % across;
        gradient[(map * across + channel) * taps + tap] += sum;
        return;
    }
    double slope = 0, bias = 0;
#pragma unroll 4
    for (int tile = t; tile < tiles; tile += REDUCTION_THREADS) {
        float2 own = two_of(partial, tile, channels, c);
        slope += own.x;
        bias += own.y;
    }
    totals.add(slope, bias);
    if (t == 0) {
        float dscale = (float)(totals.first[0] * inverse[c]), dbias = (float)totals.second[0];
        dgamma[c] += dscale;
        dbeta[c] += dbias;
        plain[c] = (add ? plain[c] : 0.0f) + gamma[c] * dbias;
        normalised[c] = (add ? normalised[c] : 0.0f) + gamma[c] * dscale;
    }
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
