// The stem's convolution from patches that are gathered as they are loaded, element by element. It
// follows stem.cu.

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
template <int LINES> struct Loader<Patches<false>, LINES, 1> {
    static constexpr int OWN = LINES / 32;
    static_assert(LINES % 32 == 0, "each thread has as many");
    const Patches<false> &patches;
    __device__ __forceinline__ Loader(const Patches<false> &patches) : patches(patches) {}
    __device__ __forceinline__ void fetch(Piece<LINES, false> &into, int, int from) {
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
    __device__ __forceinline__ void put(Piece<LINES, false> &, int, int) {}
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
