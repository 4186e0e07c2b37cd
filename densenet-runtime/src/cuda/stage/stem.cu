// The first layers: a convolution of the images (side KERNEL, stride STEP), and for ImageNet BN,
// ReLU and a 3x3 max pool of stride 2.
//
//     convolved[p][m] = sum over the kernel's pixels and channels of image * w
//     out[q][m] = max over the 9 pixels p under q of relu(scale[m] * convolved[p][m] + shift[m])
//
// The convolution is a product over patches, gathered as they are loaded: K = KERNEL^2 CHANNELS
// elements for each pixel; the weight is maps x channels x KERNEL x KERNEL. The pool stores in a
// byte which of its nine pixels it chose. In the backward pass each pixel gathers from the (at most
// four) pooled pixels that may have chosen it, so that no two threads add to the same value.

constexpr int CONVOLVED_HEIGHT = (HEIGHT + STEP - 1) / STEP, CONVOLVED_WIDTH = (WIDTH + STEP - 1) / STEP;
constexpr int AREA = CONVOLVED_HEIGHT * CONVOLVED_WIDTH, PATCH = KERNEL * KERNEL * CHANNELS;
constexpr int POOLED_HEIGHT = (CONVOLVED_HEIGHT + 1) / 2, POOLED_WIDTH = (CONVOLVED_WIDTH + 1) / 2;
// The byte of a pooled pixel if the ReLU cut off all nine values.
constexpr unsigned char NONE = 255;

// The pool's choices for a vector of maps.
// A byte for each map, stored in words, because ptxas puts bytes into local memory.
struct alignas(VECTOR) Choices {
#if VECTOR % 4
    unsigned char of[VECTOR];
    __device__ __forceinline__ unsigned operator[](int i) const { return of[i]; }
    __device__ __forceinline__ void put(int i, unsigned place) { of[i] = place; }
#else
    unsigned of[VECTOR / 4] = {};
    __device__ __forceinline__ unsigned operator[](int i) const { return of[i / 4] >> i % 4 * 8 & 255; }
    __device__ __forceinline__ void put(int i, unsigned place) { of[i / 4] |= place << i % 4 * 8; }
#endif
};
__device__ __forceinline__ Choices choices_at(const unsigned char *at) { return *reinterpret_cast<const Choices *>(ALIGNED(at, VECTOR)); }

// The position of element k of a patch (pixel by pixel) in a weight.
__device__ __forceinline__ int place_in_weight(int k) { return k % CHANNELS * KERNEL * KERNEL + k / CHANNELS; }

// Patches: lines are output pixels, elements those of the patch.
template <bool ALONG> struct Patches {
    static constexpr bool ALONG_DEPTH = ALONG, PLAIN = false;
    static constexpr int SPAN = 1;
    struct Place { int image, y, x; };
    typedef float Fetched;
    const store_t *images;
    int pixels, first_pixel, first_element;
    __device__ __forceinline__ Place place(int line) const {
        int p = first_pixel + line, inside = p % AREA;
        if (p >= pixels) return {-1, 0, 0};
        return {p / AREA, inside / CONVOLVED_WIDTH * STEP - KERNEL / 2, inside % CONVOLVED_WIDTH * STEP - KERNEL / 2};
    }
    __device__ __forceinline__ float made(Fetched fetched, int) const { return fetched; }
    __device__ __forceinline__ Fetched fetch(Place at, int element) const {
        int k = first_element + element;
        if (at.image < 0 || k >= PATCH) return 0.0f;
        int tap = k / CHANNELS, y = at.y + tap / KERNEL, x = at.x + tap % KERNEL;
        if (y < 0 || y >= HEIGHT || x < 0 || x >= WIDTH) return 0.0f;
        return images[(((size_t)at.image * HEIGHT + y) * WIDTH + x) * CHANNELS + k % CHANNELS];
    }
};

// Pieces of patches for the weight's gradient. A warp takes whole lines, so that a pixel's position
// in the image is computed once for its elements, and an element's position in the patch once for
// all pixels. Many elements are loaded at once, too many to keep in registers, so they are stored
// as they arrive.
template <int LINES> struct Loader<Patches<false>, LINES> {
    static constexpr int OWN = LINES / 32;
    static_assert(LINES % 32 == 0, "each thread has as many");
    const Patches<false> &patches;
    __device__ __forceinline__ Loader(const Patches<false> &patches) : patches(patches) {}
    __device__ __forceinline__ void fetch(Piece<LINES, false> &into, int from) {
#pragma unroll 1
        for (int line = threadIdx.x / 32; line < DEPTH; line += THREADS / 32) {
            auto place = patches.place(from + line);
#pragma unroll
            for (int i = 0; i < OWN; ++i) {
                int element = threadIdx.x % 32 + 32 * i;
                into.value[line][element] = patches.fetch(place, element);
            }
        }
    }
    __device__ __forceinline__ void put(Piece<LINES, false> &, int) {}
};

struct Weight {
    static constexpr bool ALONG_DEPTH = true, PLAIN = false;
    static constexpr int SPAN = 1;
    typedef int Place;
    typedef float Fetched;
    const float *weight;
    int first_map;
    __device__ __forceinline__ Place place(int line) const { return first_map + line; }
    __device__ __forceinline__ float made(Fetched fetched, int) const { return fetched; }
    __device__ __forceinline__ Fetched fetch(Place m, int k) const {
        return m < MAPS && k < PATCH ? weight[(size_t)m * PATCH + place_in_weight(k)] : 0.0f;
    }
};

// The gradient of the convolution's maps: lines are pixels, elements maps. For CIFAR it is `dout`;
// for ImageNet it is gathered through the pool, and BN is undone with `undo` (4 x MAPS).
struct Gradient {
    static constexpr bool ALONG_DEPTH = false, PLAIN = false;
    static constexpr int SPAN = VECTOR;
    typedef int Place;
    typedef Pack Fetched;
    const grad_t *dout;
    const unsigned char *choice;
    const store_t *convolved;
    const float *undo;
    int pixels, first_map;
    __device__ __forceinline__ Place place(int line) const { return line; }
    __device__ __forceinline__ Pack made(const Fetched &fetched, int) const { return fetched; }
    // It is masked by the ReLU: if that cut off all values, the pool chose none.
    __device__ __forceinline__ Values masked(int p, int m) const {
        int image = p / AREA, inside = p % AREA, y = inside / CONVOLVED_WIDTH, x = inside % CONVOLVED_WIDTH;
        Values sum = {};
        // Pooled row i covers rows 2 i - 1 to 2 i + 1, so a pixel is in one or two rows, and
        // likewise columns. The pixels of a row are loaded together; all four would need too many
        // registers.
        int i = y / 2, j = x / 2;
        bool below = y % 2 && i + 1 < POOLED_HEIGHT, right = x % 2 && j + 1 < POOLED_WIDTH;
#pragma unroll 1
        for (int row = 0; row <= below; ++row) {
            size_t q = (((size_t)image * POOLED_HEIGHT + i + row) * POOLED_WIDTH + j) * MAPS + m;
            int place = (y % 2 + 1 - 2 * row) * 3 + x % 2 + 1;
            // A pixel that does not exist is replaced by the first, with a choice that never
            // occurs.
            size_t next = q + (right ? MAPS : 0);
            Choices own[2] = {choices_at(choice + q), choices_at(choice + next)};
            Pack d[2] = {pack_at(dout + q), pack_at(dout + next)};
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) {
                sum[v] += (int)own[0][v] == place ? d[0][v] : 0.0f;
                sum[v] += (int)own[1][v] == (right ? place - 2 : 9) ? d[1][v] : 0.0f;
            }
        }
        return sum;
    }
    __device__ __forceinline__ Fetched fetch(Place p, int element) const {
        int m = first_map + element;
        if (p >= pixels || m >= MAPS) return Pack::zeros();
#if POOL
        Pack x = pack_at(convolved + (size_t)p * MAPS + m);
        Values values = masked(p, m), scale = floats_at(undo + m), slope = floats_at(undo + MAPS + m);
        Values shift = floats_at(undo + 2 * MAPS + m), mean = floats_at(undo + 3 * MAPS + m);
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) values[v] = fmaf(values[v], scale[v], fmaf(x[v] - mean[v], slope[v], shift[v]));
        return Pack::of<false>(values);
#else
        return pack_at(dout + (size_t)p * MAPS + m);
#endif
    }
};

// `out` is pixels x `stride`. Grid: tiles of pixels, tiles of maps. At least two blocks run on a
// multiprocessor; by itself, ptxas spills registers to fit more.
extern "C" __global__ void __launch_bounds__(THREADS, 2) stem_forward(
    const store_t *images, const float *weight, store_t *out, float *partial, int stride, int pixels, int training) {
    __shared__ union {
        Pieces<ROWS, COLUMNS, Patches<true>, Weight> pieces;
        Stage<ROWS, COLUMNS> stage;
    } shared;
    int row0 = blockIdx.x * ROWS, map0 = blockIdx.y * COLUMNS, rows = min(ROWS, pixels - row0), count = min(COLUMNS, MAPS - map0);
    Sums<ROWS, COLUMNS> sums;
    product(shared.pieces, sums, 0, PATCH, Patches<true>{images, pixels, row0, 0}, Weight{weight, map0});
    sums.stage(shared.stage);
    __syncthreads();
    // There is no dropout here.
    write(shared.stage, rows, count, out + (size_t)row0 * stride + map0, stride, Dropout(nullptr, -1), 0, 0);
    if (training) shared.stage.moments(rows, count, MAPS, map0, blockIdx.x, partial);
}

// The gradient of the weight, a share for each slice of `length` pixels, in the weight's order.
// Grid: tiles of a patch's elements, tiles of maps, slices. A tile has ELEMENTS, all if they are
// not too many, so that the gradient is gathered once. Two blocks run on a multiprocessor, as
// above.
extern "C" __global__ void __launch_bounds__(THREADS, 2) stem_weight(
    const grad_t *dout, const unsigned char *choice, const store_t *convolved, const float *undo, const store_t *images,
    float *share, int pixels, int length) {
    __shared__ Pieces<ROWS, ELEMENTS, Gradient, Patches<false>> pieces;
    int element0 = blockIdx.x * ELEMENTS, map0 = blockIdx.y * ROWS;
    int first = blockIdx.z * length, last = min(first + length, pixels);
    Sums<ROWS, ELEMENTS> sums;
    product(pieces, sums, first, last, Gradient{dout, choice, convolved, undo, last, map0}, Patches<false>{images, last, 0, element0});
#pragma unroll
    for (int i = 0; i < sums.COUNT; ++i) {
        int m = map0 + sums.row(i), k = element0 + sums.column(i);
        if (m < MAPS && k < PATCH) share[((size_t)blockIdx.z * MAPS + m) * PATCH + place_in_weight(k)] = sums.value[i];
    }
}
