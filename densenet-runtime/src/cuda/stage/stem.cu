// The first layers: a convolution of the images (side KERNEL, stride STEP), and for ImageNet BN,
// ReLU and a 3x3 max pool of stride 2.
//
//     convolved[p][m] = sum over the kernel's pixels and channels of image * w
//     out[q][m] = max over the 9 pixels p under q of relu(scale[m] * convolved[p][m] + shift[m])
//
// The convolution is a product over patches, K = KERNEL^2 CHANNELS elements for each pixel; the
// weight is maps x channels x KERNEL x KERNEL. Its kernels are in patches.cu and strips.cu. The pool
// stores in a byte which of its nine pixels it chose. In the backward pass each pixel gathers from
// the (at most four) pooled pixels that may have chosen it, so that no two threads add to the same
// value.

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

// What undoes BN for a vector of maps: scale * masked + slope * x + shift. `undo` is 4 x MAPS, and
// has a shift for x without its mean.
struct Undo {
    Values scale, slope, shift;
    __device__ __forceinline__ static Undo of(const float *undo, int m) {
        if (!POOL) return {};
        Undo own = {floats_at(undo + m), floats_at(undo + MAPS + m), floats_at(undo + 2 * MAPS + m)};
        Values mean = floats_at(undo + 3 * MAPS + m);
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) own.shift[v] = fmaf(-mean[v], own.slope[v], own.shift[v]);
        return own;
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
    // `undo_of` is asked for what undoes BN when it is needed.
    template <class Of> __device__ __forceinline__ Pack at(int p, int m, Of undo_of) const {
#if POOL
        Pack x = pack_at(convolved + (size_t)p * MAPS + m);
        Values values = masked(p, m);
        Undo undo = undo_of();
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) values[v] = fmaf(values[v], undo.scale[v], fmaf(x[v], undo.slope[v], undo.shift[v]));
        return Pack::of<false>(values);
#else
        return pack_at(dout + (size_t)p * MAPS + m);
#endif
    }
    __device__ __forceinline__ Fetched fetch(Place p, int element) const {
        int m = first_map + element;
        return p < pixels && m < MAPS ? at(p, m, [&] { return Undo::of(undo, m); }) : Pack::zeros();
    }
};
