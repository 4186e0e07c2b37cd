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

// The start of a step, unless it accumulates: sets gradients to zero, and keeps a copy of the
// running statistics, which is restored if the loss is not finite. After such a step the copy stays
// as it is, even if further steps have been started.
extern "C" __global__ void start(
    float *gradient, const float *running, float *before, const Scalars *scalars, int count, int statistics) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (scalars->accumulate) return;
    if (i < count) gradient[i] = 0.0f;
    if (i < statistics && scalars->broken == 0.0f) before[i] = running[i];
}

// Stochastic gradient descent with momentum: reads 3 values, writes 2. If the loss of the gradient
// is not finite, nothing changes.
extern "C" __global__ void descend(
    float *parameters, float *momentum, const float *gradient, const Scalars *scalars, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count || scalars->broken != 0.0f) return;
    float slope = gradient[i] + scalars->decay * parameters[i];
    float m = scalars->momentum * momentum[i] + slope;
    momentum[i] = m;
    parameters[i] -= scalars->rate * (scalars->nesterov ? slope + scalars->momentum * m : m);
}
