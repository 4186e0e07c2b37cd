// The product of two tiles, from operands that are computed as they are loaded.
//
//     sum[row][column] += a(row, k) * b(k, column)
//
// In f32, or with BF16 on the tensor cores: bf16 operands, f32 sums. Both operands are copied to
// shared memory in pieces of DEPTH, while the product of the previous piece is computed.
//
// An operand is a struct. Its elements are adjacent in memory. If it is ALONG_DEPTH, lines are rows
// (or columns) of the result and elements run along k; otherwise lines run along k. SPAN elements
// are loaded at once, VECTOR or 1. `place(line)` is what is known of a line, such as a pixel's
// coordinates. For a PLAIN operand, `at(place, element)` is the address of the elements, null
// beyond the operand's ends: they are copied directly. For another operand, `fetch(place, element)`
// loads, and `made(fetched, element)` computes the operand from it, a Pack (with SPAN 1, a float).
//
// Bytes: each block reads its rows of a and its columns of b once. Operations: 2 M N a k.

// The elements of a line that are copied at once, and the padding that puts a warp's reads of eight
// lines in different banks.
constexpr int DEPTH = DEPTH_BYTES / sizeof(store_t), PAD = PAD_BYTES / sizeof(store_t);

// How many steps of a product are unrolled: f32 has many.
constexpr int UNROLL = BF16 ? 8 : 2;

#if BF16
// One warp: d (16 x 8, f32) += a (16 x 16, bf16) * b (16 x 8, bf16), in the fragments of the PTX
// manual (mma.m16n8k16): lane = 4 g + t has a of rows g, g + 8 and depths 2t, 2t + 8 (and the next
// of each), b of the same depths and column g, d of rows g, g + 8 and columns 2t, 2t + 1.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned *b) {
#ifdef CUDA_EMULATOR
    emulated_context->mma_m16n8k16_bf16(__LINE__, d, a, b);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Four 8 x 8 matrices of bf16, with rows of 16 bytes. Lane i has the address of row i % 8 of matrix
// i / 8, and receives from each matrix the elements 2t and 2t + 1 of row g; TRANSPOSED, of column
// g.
template <bool TRANSPOSED> __device__ __forceinline__ void ldmatrix_x4(unsigned (&into)[4], const store_t *row) {
#ifdef CUDA_EMULATOR
    emulated_context->ldmatrix_x4(__LINE__, TRANSPOSED, into, row);
#else
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(into[0]), "=r"(into[1]), "=r"(into[2]), "=r"(into[3]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(into[0]), "=r"(into[1]), "=r"(into[2]), "=r"(into[3]) : "r"(at) : "memory");
#endif
}
#endif

// A thread's share of an M x N tile of results. Operands are in shared memory; `a(line)` and
// `b(line)` are the start of a line: if the operand is ALONG the depth, of a row (or a column),
// otherwise of a depth.
//
// A thread's columns are not adjacent. But the order of the columns is the caller's choice: if
// column c is line `line_of(c)` of b, a thread has RUNS rows of RUN adjacent columns each, and can
// load, compute and store them as vectors, without the detour through shared memory. `of_run` is
// such a value. SHARERS threads have the same columns, and this is number `sharer` of them.
template <int M, int N> struct Sums {
    static constexpr int COUNT = M * N / THREADS;
    float value[COUNT];
    __device__ __forceinline__ Sums() {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) value[i] = 0.0f;
    }
#if BF16
    // Eight warps, DOWN x ACROSS, with HIGH x WIDE results each: products of 16 rows by 8 columns.
    static constexpr int AT_ONCE = 16;
    static constexpr int DOWN = M >= 128 && N <= 32 ? 8 : M == 64 && N == 128 ? 2 : M <= 32 ? 2 : 4, ACROSS = 8 / DOWN;
    static constexpr int HIGH = M / DOWN, WIDE = N / ACROSS;
    static_assert(HIGH % 16 == 0 && WIDE % 16 == 0, "a warp has whole products");
    struct Rows { unsigned of[HIGH / 16][4]; };
    __device__ static int top() { return threadIdx.x / 32 / ACROSS * HIGH; }
    __device__ static int left() { return threadIdx.x / 32 % ACROSS * WIDE; }
    __device__ static int row(int i) { return top() + i / (WIDE / 2) * 16 + threadIdx.x % 32 / 4 + i % 4 / 2 * 8; }
    __device__ static int column(int i) { return left() + i % (WIDE / 2) / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }

    static constexpr int RUN = 8, RUNS = COUNT / RUN, SHARERS = DOWN * 8;
    __device__ static int line_of(int column) { return (column & ~31) | (column >> 1 & 3) << 3 | (column >> 3 & 3) << 1 | (column & 1); }
    __device__ static int column_of(int line) { return line_of(line); }
    __device__ static int run_row(int run) { return top() + run / 2 * 16 + run % 2 * 8 + threadIdx.x % 32 / 4; }
    __device__ static int run_column() { return left() + threadIdx.x % 4 * RUN; }
    __device__ static int sharer() { return threadIdx.x / 32 / ACROSS * 8 + threadIdx.x % 32 / 4; }
    // A barrier for the warps with the same rows.
    __device__ __forceinline__ static void rows_meet() {
#ifdef CUDA_EMULATOR
        __syncthreads();
#else
        asm volatile("bar.sync %0, %1;" ::"r"(1 + threadIdx.x / (32 * ACROSS)), "n"(32 * ACROSS) : "memory");
#endif
    }
    __device__ static int place_in_run(int run, int i) {
        static_assert(WIDE == 32, "a warp's columns are a run for each of four threads");
        return run / 2 * 16 + i / 2 * 4 + run % 2 * 2 + i % 2;
    }

    template <bool ALONG, class A> __device__ __forceinline__ static Rows rows(const A &a, int k) {
        int lane = threadIdx.x % 32;
        Rows rows;
#pragma unroll
        for (int i = 0; i < HIGH / 16; ++i) {
            const store_t *at = ALONG ? a(top() + 16 * i + lane % 16) + k + lane / 16 * 8
                                      : a(k + lane / 16 * 8 + lane % 8) + top() + 16 * i + lane / 8 % 2 * 8;
            ldmatrix_x4<!ALONG>(rows.of[i], at);
        }
        return rows;
    }
    template <bool ALONG, class B> __device__ __forceinline__ void multiply(const Rows &rows, const B &b, int k) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int j = 0; j < WIDE / 16; ++j) {
            unsigned two[4];
            const store_t *at = ALONG ? b(left() + 16 * j + lane / 16 * 8 + lane % 8) + k + lane / 8 % 2 * 8
                                      : b(k + lane % 16) + left() + 16 * j + lane / 16 * 8;
            ldmatrix_x4<!ALONG>(two, at);
#pragma unroll
            for (int i = 0; i < HIGH / 16; ++i)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float(&d)[4] = *reinterpret_cast<float(*)[4]>(&value[i * (WIDE / 2) + (2 * j + half) * 4]);
                    mma_m16n8k16_bf16(d, rows.of[i], two + 2 * half);
                }
        }
    }
#else
    // 16 x 16 threads; each has every sixteenth row and column.
    static constexpr int AT_ONCE = 4;
    struct Rows { float of[M / 16][4]; };
    __device__ static int row(int i) { return threadIdx.x / 16 + i / (N / 16) * 16; }
    __device__ static int column(int i) { return threadIdx.x % 16 + i % (N / 16) * 16; }

    static constexpr int RUN = N / 16, RUNS = COUNT / RUN, SHARERS = 16;
    __device__ static int line_of(int column) { return column % RUN * 16 + column / RUN; }
    __device__ static int column_of(int line) { return line % 16 * RUN + line / 16; }
    __device__ static int run_row(int run) { return threadIdx.x / 16 + run * 16; }
    __device__ static int run_column() { return threadIdx.x % 16 * RUN; }
    __device__ static int sharer() { return threadIdx.x / 16; }
    __device__ __forceinline__ static void rows_meet() { __syncthreads(); }
    __device__ static int place_in_run(int run, int i) { return run * RUN + i; }

    // Four depths of a line.
    template <bool ALONG, class F> __device__ __forceinline__ static void four(float (&into)[4], const F &f, int line, int k) {
        if (ALONG) {
            float4 all = *reinterpret_cast<const float4 *>(ALIGNED(f(line) + k, 16));
            into[0] = all.x, into[1] = all.y, into[2] = all.z, into[3] = all.w;
        } else {
#pragma unroll // on the host, too
            for (int i = 0; i < 4; ++i) into[i] = f(k + i)[line];
        }
    }
    template <bool ALONG, class A> __device__ __forceinline__ static Rows rows(const A &a, int k) {
        Rows rows;
#pragma unroll // on the host, too
        for (int i = 0; i < M / 16; ++i) four<ALONG>(rows.of[i], a, threadIdx.x / 16 + 16 * i, k);
        return rows;
    }
    template <bool ALONG, class B> __device__ __forceinline__ void multiply(const Rows &rows, const B &b, int k) {
#pragma unroll // on the host, too
        for (int j = 0; j < N / 16; ++j) {
            float own[4];
            four<ALONG>(own, b, threadIdx.x % 16 + 16 * j, k);
#pragma unroll // on the host, too
            for (int i = 0; i < M / 16; ++i)
#pragma unroll // on the host, too
                for (int d = 0; d < 4; ++d) value[i * (N / 16) + j] = fmaf(rows.of[i][d], own[d], value[i * (N / 16) + j]);
        }
    }
#endif
    __device__ __forceinline__ float of_run(int run, int i) const { return value[place_in_run(run, i)]; }
    __device__ __forceinline__ float &of_run(int run, int i) { return value[place_in_run(run, i)]; }
    // Sums over `depth` depths, which AT_ONCE divides.
    template <bool ALONG_A, bool ALONG_B, class A, class B>
    __device__ __forceinline__ void add(int depth, const A &a, const B &b) {
#pragma unroll UNROLL
        for (int k = 0; k < depth; k += AT_ONCE) multiply<ALONG_B>(rows<ALONG_A>(a, k), b, k);
    }
    // Writes the thread's share into the tile. The caller needs a barrier before the tile is read.
    __device__ __forceinline__ void stage(Stage<M, N> &stage) const {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) stage.value[row(i)][column(i)] = value[i];
    }
};

// A piece of an operand with LINES rows or columns.
template <int LINES, bool ALONG> struct Piece {
    alignas(16) store_t value[ALONG ? LINES : DEPTH][(ALONG ? DEPTH : LINES) + PAD];
    __device__ __forceinline__ const store_t *operator()(int line) const { return value[line]; }
};

__device__ __forceinline__ void put_made(store_t *at, const Pack &made) { put_pack(at, made); }
__device__ __forceinline__ void put_made(store_t *at, float made) { *at = made; }

// Copies an operand's pieces to shared memory, SETS at once.
template <class Operand, int LINES, int SETS> struct Loader {
    static constexpr bool ALONG = Operand::ALONG_DEPTH;
    static constexpr int GROUPS = (ALONG ? DEPTH : LINES) / Operand::SPAN, TOTAL = LINES * DEPTH / Operand::SPAN;
    static constexpr int COUNT = (TOTAL + THREADS - 1) / THREADS;
    typedef Piece<LINES, ALONG> Into;
    const Operand &operand;
    typename Operand::Place own[COUNT];
    typename Operand::Fetched fetched[SETS][COUNT];

    __device__ __forceinline__ static bool has(int i) { return TOTAL % THREADS == 0 || threadIdx.x + i * THREADS < TOTAL; }
    __device__ __forceinline__ static int line(int i) { return (threadIdx.x + i * THREADS) / GROUPS; }
    __device__ __forceinline__ static int element(int i) { return (threadIdx.x + i * THREADS) % GROUPS * Operand::SPAN; }

    __device__ __forceinline__ Loader(const Operand &operand) : operand(operand) {
        if (ALONG) {
#pragma unroll
            for (int i = 0; i < COUNT; ++i) own[i] = operand.place(line(i));
        }
    }
    // Starts to load the piece from depth `from` on.
    __device__ __forceinline__ void fetch(Into &into, int set, int from) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            if (!has(i)) continue;
            typename Operand::Place place = ALONG ? own[i] : operand.place(from + line(i));
            int e = element(i) + (ALONG ? from : 0);
            if constexpr (Operand::PLAIN) copy_async(&into.value[line(i)][element(i)], operand.at(place, e), operand.any());
            else fetched[set][i] = operand.fetch(place, e);
        }
    }
    // Writes the piece to shared memory, unless it is copied directly.
    __device__ __forceinline__ void put(Into &into, int set, int from) {
        if constexpr (!Operand::PLAIN) {
            // All first, so that what they have in common is loaded once.
            decltype(operand.made(fetched[0][0], 0)) made[COUNT];
#pragma unroll
            for (int i = 0; i < COUNT; ++i)
                if (has(i)) made[i] = operand.made(fetched[set][i], element(i) + (ALONG ? from : 0));
#pragma unroll
            for (int i = 0; i < COUNT; ++i)
                if (has(i)) put_made(&into.value[line(i)][element(i)], made[i]);
        }
    }
};

// What a plain operand fetches: nothing, because it is copied directly.
struct Nothing {};

// Pieces of both operands: two, or if the next TURNS - 1 are loaded while one is in use, as many of
// an operand that is copied directly. Of another one, what is loaded is in registers.
template <int M, int N, class A, class B, int TURNS = 2> struct Pieces {
    static constexpr int OF_A = A::PLAIN ? TURNS : 2, OF_B = B::PLAIN ? TURNS : 2;
    Piece<M, A::ALONG_DEPTH> a[OF_A];
    Piece<N, B::ALONG_DEPTH> b[OF_B];
};

// Sums over depths `first` to `last`. Ends with a barrier.
template <int M, int N, class A, class B, int TURNS>
__device__ __forceinline__ void product(Pieces<M, N, A, B, TURNS> &pieces, Sums<M, N> &sums, int first, int last, const A &a, const B &b) {
    constexpr int SETS = TURNS - 1, OF_A = Pieces<M, N, A, B, TURNS>::OF_A, OF_B = Pieces<M, N, A, B, TURNS>::OF_B;
    Loader<A, M, SETS> of_a(a);
    Loader<B, N, SETS> of_b(b);
#pragma unroll
    for (int set = 0; set < SETS; ++set) {
        if (first + set * DEPTH < last) {
            of_a.fetch(pieces.a[set % OF_A], set, first + set * DEPTH);
            of_b.fetch(pieces.b[set % OF_B], set, first + set * DEPTH);
        }
        copies_grouped();
    }
    for (int from = first, turn_a = 0, turn_b = 0; from < last;) {
#pragma unroll
        for (int set = 0; set < SETS; ++set) {
            if (from >= last) break;
            auto &now_a = pieces.a[turn_a];
            auto &now_b = pieces.b[turn_b];
            of_a.put(now_a, set, from);
            of_b.put(now_b, set, from);
            copies_done_but<SETS - 1>();
            // All have put theirs, and nobody still reads the pieces that are loaded next.
            __syncthreads();
            if (from + SETS * DEPTH < last) {
                of_a.fetch(pieces.a[(turn_a + SETS) % OF_A], set, from + SETS * DEPTH);
                of_b.fetch(pieces.b[(turn_b + SETS) % OF_B], set, from + SETS * DEPTH);
            }
            copies_grouped();
            sums.template add<A::ALONG_DEPTH, B::ALONG_DEPTH>(DEPTH, now_a, now_b);
            from += DEPTH;
            turn_a = turn_a + 1 < OF_A ? turn_a + 1 : 0;
            turn_b = turn_b + 1 < OF_B ? turn_b + 1 : 0;
        }
    }
    __syncthreads();
}

// Writes a tile of maps, whose first row starts at `out`, and leaves the stored values in the tile.
// `number` is that of the first value at its site of dropout, if a row has `maps` values.
template <int M, int N>
__device__ __forceinline__ void write(Stage<M, N> &stage, int rows, int count, store_t *out, int stride,
                                      const Dropout &dropout, size_t number, int maps) {
    int column = stage.own_column();
    for (int row = stage.own_row(); row < rows && column < count; row += stage.ACROSS) {
        Values values = floats_at(&stage.value[row][column]);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) values[i] *= dropout.factor(number + (size_t)row * maps + column + i);
        Pack pack = Pack::of<false>(values);
        put_global(out + (size_t)row * stride + column, pack);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) values[i] = pack[i];
        put_floats(&stage.value[row][column], values);
    }
    __syncthreads();
}

// Memory for the sums of a tile's columns: a line for each thread that shares a column.
template <int M, int N> struct Columns {
    alignas(16) float lines[Sums<M, N>::SHARERS][N + 4], mean[N];
};

// Writes a tile of maps, whose first row starts at `out`, from the threads' runs. `number` is that of
// the first value at its site of dropout, if a row has `maps` values. If there is a `partial`, writes
// partial[tile][map][2]: the mean of each column's stored values, and the sum of their squared
// deviations; `first` is the first column's map.
template <int M, int N>
__device__ __forceinline__ void write_runs(const Sums<M, N> &sums, Columns<M, N> &columns, int rows, int count, store_t *out,
                                           const Dropout &dropout, size_t number, int maps, int first, int tile, float *partial) {
    typedef Sums<M, N> Own;
    static_assert(N <= THREADS, "each column has a thread that adds up its lines");
    constexpr int EACH = Own::RUN / VECTOR;
    int column = Own::run_column(), sharer = Own::sharer();
    Pack stored[Own::RUNS][EACH];
#pragma unroll
    for (int run = 0; run < Own::RUNS; ++run)
#pragma unroll
        for (int v = 0; v < EACH; ++v) {
            int row = Own::run_row(run), c = column + v * VECTOR;
            size_t at = (size_t)row * maps + c;
            Values values;
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) values[i] = sums.of_run(run, v * VECTOR + i) * dropout.factor(number + at + i);
            stored[run][v] = Pack::of<false>(values);
            if (row < rows && c < count) put_global(out + at, stored[run][v]);
        }
    if (!partial) return;
    // The sum of a term of each column's values; the first N threads get that of their column.
    auto column_sum = [&](auto term) {
#pragma unroll
        for (int v = 0; v < EACH; ++v) {
            Values sum = {};
#pragma unroll
            for (int i = 0; i < VECTOR; ++i)
#pragma unroll
                for (int run = 0; run < Own::RUNS; ++run)
                    if (Own::run_row(run) < rows) sum[i] += term(stored[run][v][i], column + v * VECTOR + i);
            put_floats(&columns.lines[sharer][column + v * VECTOR], sum);
        }
        __syncthreads();
        float sum = 0.0f;
        if (threadIdx.x < N)
            for (int line = 0; line < Own::SHARERS; ++line) sum += columns.lines[line][threadIdx.x];
        return sum;
    };
    float mean = column_sum([](float x, int) { return x; }) / (float)rows;
    if (threadIdx.x < N) columns.mean[threadIdx.x] = mean;
    __syncthreads();
    float squares = column_sum([&](float x, int c) { return (x - columns.mean[c]) * (x - columns.mean[c]); });
    if ((int)threadIdx.x < count) {
        float *into = partial + ((size_t)tile * maps + first + threadIdx.x) * 2;
        into[0] = mean;
        into[1] = squares;
    }
}
