// What precedes and follows a pass: conversion of the images, reset of the gradients, gradient
// descent. Each kernel passes its values once, one value for each thread.

// From channels x area, image by image, to area x channels.
extern "C" __global__ void images_from_nchw(const float *from, store_t *into, int channels, int area, int batch) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)batch * area * channels) return;
    size_t p = i / channels, c = i % channels;
    into[i] = from[(p / area * channels + c) * area + p % area];
}

// From bytes, pixels x channels; `norm` has the channels' means, then their standard deviations.
extern "C" __global__ void images_from_bytes(const unsigned char *from, const float *norm, store_t *into, int channels, int pixels) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)pixels * channels) return;
    int c = i % channels;
    into[i] = ((float)from[i] / 255.0f - norm[c]) / norm[channels + c];
}

// From floats in [0, 1], pixels x channels; `norm` as above.
extern "C" __global__ void images_from_floats(const float *from, const float *norm, store_t *into, int channels, int pixels) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)pixels * channels) return;
    int c = i % channels;
    into[i] = (from[i] - norm[c]) / norm[channels + c];
}

// Maps as callers get them: from pixels x channels, as they are stored, to channels x pixels, image
// by image, in f32; if `normalised`, through a BN and ReLU. Tiles pass through shared memory, so
// that both sides are whole lines of memory. Grid: tiles of the pixels of all images, tiles of
// channels.
constexpr int SIDE = 32;
extern "C" __global__ void __launch_bounds__(THREADS) maps_to_nchw(
    const store_t *x, const float *scale, const float *shift, float *into, int channels, int area, int normalised) {
    __shared__ float tile[SIDE][SIDE + 1];
    int tiles = (area + SIDE - 1) / SIDE, image = blockIdx.x / tiles, p0 = blockIdx.x % tiles * SIDE, c0 = blockIdx.y * SIDE;
    int lane = threadIdx.x % SIDE, first = threadIdx.x / SIDE;
    for (int line = first; line < SIDE; line += THREADS / SIDE) {
        int p = p0 + line, c = c0 + lane;
        if (p >= area || c >= channels) continue;
        float value = x[((size_t)image * area + p) * channels + c];
        tile[line][lane] = normalised ? relu(fmaf(value, scale[c], shift[c])) : value;
    }
    __syncthreads();
    for (int line = first; line < SIDE; line += THREADS / SIDE) {
        int p = p0 + lane, c = c0 + line;
        if (p < area && c < channels) into[((size_t)image * channels + c) * area + p] = tile[lane][line];
    }
}

// The start of a step, unless it accumulates: sets gradients to zero, four at a time, and keeps a
// copy of the running statistics, which is restored if the loss is not finite. After such a step
// the copy stays as it is, even if further steps have been started.
extern "C" __global__ void start(
    float *gradient, const float *running, float *before, const Scalars *scalars, int count, int statistics) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, all = gridDim.x * blockDim.x;
    if (scalars->accumulate) return;
    for (long long at = 4LL * i; at < count; at += 4LL * all) {
        if (at + 4 <= count) *reinterpret_cast<float4 *>(ALIGNED(gradient + at, 16)) = {};
        else
            for (long long rest = at; rest < count; ++rest) gradient[rest] = 0.0f;
    }
    if (scalars->broken != 0.0f) return;
    for (; i < statistics; i += all) before[i] = running[i];
}

// Sums of squares of gradients, a sum a block. Every block adds up in the same order at every step.
extern "C" __global__ void __launch_bounds__(REDUCTION_THREADS) squares(
    const float *gradient, double *sums, int count) {
    __shared__ double shares[REDUCTION_THREADS];
    int t = threadIdx.x;
    double own = 0;
    for (size_t i = (size_t)blockIdx.x * REDUCTION_THREADS + t; i < (size_t)count; i += (size_t)gridDim.x * REDUCTION_THREADS)
        own += (double)gradient[i] * (double)gradient[i];
    shares[t] = own;
    for (int half = REDUCTION_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) shares[t] += shares[t + half];
    }
    if (t == 0) sums[blockIdx.x] = shares[0];
}

// From these sums to the factor that makes the norm of all gradients at most `clip`; one block.
extern "C" __global__ void __launch_bounds__(REDUCTION_THREADS) clip(const double *sums, Scalars *scalars, int blocks) {
    if (threadIdx.x != 0) return;
    double sum = 0;
    for (int i = 0; i < blocks; ++i) sum += sums[i];
    float factor = scalars->clip / ((float)sqrt(sum) + scalars->norm_epsilon);
    scalars->factor = factor >= 1.0f ? 1.0f : factor; // NaN stays
}

// Parameters that move alike: from `first` on, up to the next group's.
struct Group {
    int first;
    float rate, decay; // shares of the learning rate and of the weight decay
};

// The group of a parameter.
__device__ __forceinline__ const Group *group_of(const Group *groups, int count, int i) {
    int low = 0, high = count;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (groups[middle].first <= i) low = middle;
        else high = middle;
    }
    return groups + low;
}

// Stochastic gradient descent with momentum: reads 3 values, writes 2. Nothing changes where the
// loss that the gradient is of was not finite.
extern "C" __global__ void descend(
    float *parameters, float *momentum, const float *gradient, const Scalars *scalars, const Group *groups,
    int group_count, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count || scalars->broken != 0.0f) return;
    const Group *group = group_of(groups, group_count, i);
    float factor = scalars->clip > 0.0f ? scalars->factor : 1.0f;
    float slope = factor * gradient[i] + group->decay * scalars->decay * parameters[i];
    float m = scalars->momentum * momentum[i] + slope;
    momentum[i] = m;
    parameters[i] -= group->rate * scalars->rate * (scalars->nesterov ? slope + scalars->momentum * m : m);
}

// AdamW: reads 4 values, writes 3.
extern "C" __global__ void descend_adamw(
    float *parameters, float *first, float *second, const float *gradient, const Scalars *scalars,
    const Group *groups, int group_count, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count || scalars->broken != 0.0f) return;
    const Group *group = group_of(groups, group_count, i);
    float rate = group->rate * scalars->rate;
    float kept = 1.0f - rate * (group->decay * scalars->decay);
    float slope = (scalars->clip > 0.0f ? scalars->factor : 1.0f) * gradient[i];
    float m = first[i], v = second[i];
    m += scalars->fresh1 * (slope - m);
    v += scalars->fresh2 * (slope * slope - v);
    first[i] = m;
    second[i] = v;
    float deviation = scalars->correction2 * sqrtf(v) + scalars->epsilon;
    parameters[i] = kept * parameters[i] - rate * (scalars->correction1 * m / deviation);
}

// Moves averages of parameters or statistics towards their current values.
extern "C" __global__ void average(float *average, const float *values, const Scalars *scalars, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count || scalars->broken != 0.0f) return;
    average[i] += scalars->fresh * (values[i] - average[i]);
}
