//! The instruction sets that kernels are compiled for, and the choice among them.
//!
//! A [`Kernel`] is written once, generic over [`Simd`]. [`Level::run`] runs it compiled for the
//! level's instructions. Element-wise loops are plain Rust, which the compiler vectorises for the
//! level; the products of [`super::product`] use the vectors of [`Simd`] explicitly.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The instructions that every processor of the target has.
    Baseline,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with products of bfloat16.
    Avx512Bf16,
}

/// Proof that the processor is at [`Level::Avx512Bf16`], and so can multiply pairs of bfloat16 (see
/// [`super::pairs`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bf16(());

impl Bf16 {
    /// The proof, if the processor has the instructions.
    pub fn detect() -> Option<Self> {
        (Level::detect() == Level::Avx512Bf16).then_some(Self(()))
    }
}

/// Work that is compiled for each level.
pub trait Kernel {
    /// It must be `#[inline(always)]`, and so must everything that it passes `simd` to, so that the
    /// level's instructions reach it.
    fn run<S: Simd>(self, simd: S);
}

impl Level {
    /// The best level of this processor.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("fma")
            {
                return if is_x86_feature_detected!("avx512bf16") {
                    Self::Avx512Bf16
                } else {
                    Self::Avx512
                };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Baseline
    }

    /// This level, or the best one that the processor has if that is lower.
    pub fn at_most(self) -> Self {
        self.min(Self::detect())
    }

    /// Lanes of a vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Baseline => Baseline::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Bf16 => Avx512::LANES,
            #[cfg(not(target_arch = "x86_64"))]
            _ => Baseline::LANES,
        }
    }

    /// Runs a kernel, compiled for this level.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) {
        match self.at_most() {
            Self::Baseline => kernel.run(Baseline),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `at_most` has checked that the processor has these instructions.
            Self::Avx2 => unsafe { run_avx2(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 | Self::Avx512Bf16 => unsafe { run_avx512(kernel) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => kernel.run(Baseline),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn run_avx2<K: Kernel>(kernel: K) {
    kernel.run(Avx2(()));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[inline(never)]
fn run_avx512<K: Kernel>(kernel: K) {
    kernel.run(Avx512(()));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
#[inline(never)]
fn run_avx512bf16<K: Kernel>(kernel: K) {
    kernel.run(Avx512(()));
}

/// A token for an instruction set that the processor has, with the vectors that products use.
pub trait Simd: Copy {
    /// A vector of f32.
    type Vector: Copy;
    /// Lanes of a vector.
    const LANES: usize;
    /// The rows of a product's register tile. Rows x 2 accumulators, 2 operands and a broadcast
    /// fill the registers.
    const ROWS: usize;
    /// Whether there are 32 registers instead of 16.
    const WIDE: bool;

    /// A vector of zeros.
    fn zero(self) -> Self::Vector;
    /// A vector whose lanes are all `*at`.
    ///
    /// # Safety
    /// `at` is valid for a read.
    unsafe fn splat(self, at: *const f32) -> Self::Vector;
    /// Reads `LANES` values.
    ///
    /// # Safety
    /// `at` is valid for a read of `LANES` values.
    unsafe fn load(self, at: *const f32) -> Self::Vector;
    /// Writes `LANES` values.
    ///
    /// # Safety
    /// `at` is valid for a write of `LANES` values.
    unsafe fn store(self, at: *mut f32, value: Self::Vector);
    /// Reads `count` values, at most `LANES`; the other lanes are zero.
    ///
    /// # Safety
    /// `at` is valid for a read of `count` values.
    unsafe fn load_part(self, at: *const f32, count: usize) -> Self::Vector;
    /// Writes the first `count` lanes, at most `LANES`.
    ///
    /// # Safety
    /// `at` is valid for a write of `count` values.
    unsafe fn store_part(self, at: *mut f32, value: Self::Vector, count: usize);
    /// Prefetches a value that will be needed soon; `at` may point anywhere.
    #[inline(always)]
    fn prefetch(self, at: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction is part of the target's baseline and reads nothing.
        unsafe {
            x86::_mm_prefetch::<{ x86::_MM_HINT_T0 }>(at.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
    /// Prefetches, as [`Simd::prefetch`] does, a value that will be needed a little later: only
    /// into the L2 cache.
    #[inline(always)]
    fn prefetch_far(self, at: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `prefetch`.
        unsafe {
            x86::_mm_prefetch::<{ x86::_MM_HINT_T1 }>(at.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
    /// Interleaves the lanes of `a` and `b`. Returns the result for the first halves and for the
    /// second halves.
    fn interleave(self, a: Self::Vector, b: Self::Vector) -> (Self::Vector, Self::Vector);
    /// `a - b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `value` where `z > 0`, else zero.
    fn where_positive(self, z: Self::Vector, value: Self::Vector) -> Self::Vector;
    /// `z` if it is not below zero, else zero; a NaN stays.
    fn relu(self, z: Self::Vector) -> Self::Vector;
    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`.
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a * b + c`, where each lane of `a` and `b` is a pair of bfloat16 (see [`super::pairs`]) and
    /// both products are added. Only AVX-512 can do this; the other levels return `c`.
    fn dot(self, proof: Bf16, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        let _ = (proof, a, b);
        c
    }
    /// Writes a vector as `LANES / 2` pairs of bfloat16: neighbouring lanes make a pair. Only
    /// AVX-512 can do this; the other levels write nothing.
    ///
    /// # Safety
    /// `at` is valid for a write of `LANES / 2` values.
    unsafe fn store_pairs(self, proof: Bf16, at: *mut f32, value: Self::Vector) {
        let _ = (proof, at, value);
    }
    /// Makes a pair of bfloat16 of each lane of `a` and that of `b`. Only AVX-512 can do this; the
    /// other levels return `a`.
    fn pairs_of_lanes(self, proof: Bf16, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        let _ = (proof, b);
        a
    }
    /// `a * b + c` of scalars, fused if the level has an instruction for it.
    fn scalar_fma(self, a: f32, b: f32, c: f32) -> f32;
    /// Runs a kernel as a function of its own, compiled once for the level.
    fn outline<K: Kernel>(self, kernel: K);
    /// Runs a kernel as [`Simd::outline`] does, if the kernel uses [`Simd::dot`].
    fn outline_pairs<K: Kernel>(self, proof: Bf16, kernel: K) {
        let _ = proof;
        self.outline(kernel);
    }
}

/// Four lanes in plain Rust.
#[derive(Clone, Copy)]
pub struct Baseline;

impl Simd for Baseline {
    type Vector = [f32; 4];
    const LANES: usize = 4;
    const ROWS: usize = 4;
    const WIDE: bool = false;

    #[inline(always)]
    fn zero(self) -> [f32; 4] {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(self, at: *const f32) -> [f32; 4] {
        // SAFETY: the caller's promise.
        [unsafe { *at }; 4]
    }
    #[inline(always)]
    unsafe fn load(self, at: *const f32) -> [f32; 4] {
        // SAFETY: the caller's promise; an array has its element's alignment.
        unsafe { at.cast::<[f32; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32, value: [f32; 4]) {
        // SAFETY: the caller's promise; an array has its element's alignment.
        unsafe { at.cast::<[f32; 4]>().write(value) }
    }
    #[inline(always)]
    unsafe fn load_part(self, at: *const f32, count: usize) -> [f32; 4] {
        std::array::from_fn(|i| {
            if i < count {
                // SAFETY: the caller's promise; only the first `count` are read.
                unsafe { *at.add(i) }
            } else {
                0.0
            }
        })
    }
    #[inline(always)]
    unsafe fn store_part(self, at: *mut f32, value: [f32; 4], count: usize) {
        for (i, value) in value.into_iter().enumerate().take(count) {
            // SAFETY: the caller's promise; only the first `count` are written.
            unsafe { *at.add(i) = value };
        }
    }
    #[inline(always)]
    fn interleave(self, a: [f32; 4], b: [f32; 4]) -> ([f32; 4], [f32; 4]) {
        ([a[0], b[0], a[1], b[1]], [a[2], b[2], a[3], b[3]])
    }
    #[inline(always)]
    fn sub(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn where_positive(self, z: [f32; 4], value: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| if z[i] > 0.0 { value[i] } else { 0.0 })
    }
    #[inline(always)]
    fn relu(self, z: [f32; 4]) -> [f32; 4] {
        z.map(|z| if z < 0.0 { 0.0 } else { z })
    }
    #[inline(always)]
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn fma(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn scalar_fma(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
    #[inline(never)]
    fn outline<K: Kernel>(self, kernel: K) {
        kernel.run(self);
    }
}

/// Eight lanes with AVX2 and FMA. It exists only if the processor has them.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2(());

/// Sixteen lanes with AVX-512. It exists only if the processor has it.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512(());

/// Implements [`Simd`] with intrinsics; the token is proof that the processor has them.
#[cfg(target_arch = "x86_64")]
macro_rules! by_intrinsics {
    ($token:ident, $vector:ident, $lanes:literal, $rows:literal,
     $zero:ident, $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $max:ident,
     $fma:ident, $outline:ident, { $($rest:tt)* }) => {
        impl Simd for $token {
            type Vector = x86::$vector;
            const LANES: usize = $lanes;
            const ROWS: usize = $rows;
            const WIDE: bool = $lanes == 16;

            #[inline(always)]
            fn zero(self) -> Self::Vector {
                // SAFETY: the token exists only if the processor has the instructions.
                unsafe { x86::$zero() }
            }
            #[inline(always)]
            unsafe fn splat(self, at: *const f32) -> Self::Vector {
                // SAFETY: the caller's promise, and the token.
                unsafe { x86::$splat(*at) }
            }
            #[inline(always)]
            unsafe fn load(self, at: *const f32) -> Self::Vector {
                // SAFETY: the caller's promise, and the token; the load is unaligned.
                unsafe { x86::$load(at) }
            }
            #[inline(always)]
            unsafe fn store(self, at: *mut f32, value: Self::Vector) {
                // SAFETY: the caller's promise, and the token; the store is unaligned.
                unsafe { x86::$store(at, value) }
            }
            #[inline(always)]
            fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                // SAFETY: the token.
                unsafe { x86::$add(a, b) }
            }
            #[inline(always)]
            fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
                // SAFETY: the token.
                unsafe { x86::$sub(a, b) }
            }
            #[inline(always)]
            fn relu(self, z: Self::Vector) -> Self::Vector {
                // SAFETY: the token. If one operand is a NaN, the instruction returns its second
                // operand.
                unsafe { x86::$max(x86::$zero(), z) }
            }
            $($rest)*
            #[inline(always)]
            fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
                // SAFETY: the token.
                unsafe { x86::$fma(a, b, c) }
            }
            #[inline(always)]
            fn scalar_fma(self, a: f32, b: f32, c: f32) -> f32 {
                a.mul_add(b, c)
            }
            #[inline(always)]
            fn outline<K: Kernel>(self, kernel: K) {
                // SAFETY: the token exists only if the processor has the instructions.
                unsafe { $outline(kernel) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
by_intrinsics!(
    Avx2,
    __m256,
    8,
    6,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_max_ps,
    _mm256_fmadd_ps,
    run_avx2,
    {
        #[inline(always)]
        unsafe fn load_part(self, at: *const f32, count: usize) -> Self::Vector {
            if count >= Self::LANES {
                // SAFETY: the caller's promise.
                return unsafe { self.load(at) };
            }
            // SAFETY: the token; masked lanes are not read.
            unsafe { x86::_mm256_maskload_ps(at, first_lanes(count)) }
        }
        #[inline(always)]
        unsafe fn store_part(self, at: *mut f32, value: Self::Vector, count: usize) {
            if count >= Self::LANES {
                // SAFETY: the caller's promise.
                return unsafe { self.store(at, value) };
            }
            // SAFETY: the token; masked lanes are not written.
            unsafe { x86::_mm256_maskstore_ps(at, first_lanes(count), value) }
        }
        #[inline(always)]
        fn interleave(self, a: Self::Vector, b: Self::Vector) -> (Self::Vector, Self::Vector) {
            // SAFETY: the token. The results have quarters 0 and 2 of both first, then 1 and 3; the
            // permutations put them in order.
            unsafe {
                let (even, odd) = (x86::_mm256_unpacklo_ps(a, b), x86::_mm256_unpackhi_ps(a, b));
                (
                    x86::_mm256_permute2f128_ps::<0x20>(even, odd),
                    x86::_mm256_permute2f128_ps::<0x31>(even, odd),
                )
            }
        }
        #[inline(always)]
        fn where_positive(self, z: Self::Vector, value: Self::Vector) -> Self::Vector {
            // SAFETY: the token.
            unsafe {
                let zero = x86::_mm256_setzero_ps();
                let positive = x86::_mm256_cmp_ps::<{ x86::_CMP_GT_OQ }>(z, zero);
                x86::_mm256_and_ps(positive, value)
            }
        }
    }
);
#[cfg(target_arch = "x86_64")]
by_intrinsics!(
    Avx512,
    __m512,
    16,
    14,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_max_ps,
    _mm512_fmadd_ps,
    run_avx512,
    {
        #[inline(always)]
        unsafe fn load_part(self, at: *const f32, count: usize) -> Self::Vector {
            if count >= Self::LANES {
                // SAFETY: the caller's promise.
                return unsafe { self.load(at) };
            }
            // SAFETY: the token; masked lanes are not read.
            unsafe { x86::_mm512_maskz_loadu_ps((1 << count) - 1, at) }
        }
        #[inline(always)]
        unsafe fn store_part(self, at: *mut f32, value: Self::Vector, count: usize) {
            if count >= Self::LANES {
                // SAFETY: the caller's promise.
                return unsafe { self.store(at, value) };
            }
            // SAFETY: the token; masked lanes are not written.
            unsafe { x86::_mm512_mask_storeu_ps(at, (1 << count) - 1, value) }
        }
        #[inline(always)]
        fn interleave(self, a: Self::Vector, b: Self::Vector) -> (Self::Vector, Self::Vector) {
            // SAFETY: the token.
            unsafe {
                let [first, second] = HALVES_IN_TURN
                    .each_ref()
                    .map(|order| x86::_mm512_loadu_si512(order.as_ptr().cast()));
                (
                    x86::_mm512_permutex2var_ps(a, first, b),
                    x86::_mm512_permutex2var_ps(a, second, b),
                )
            }
        }
        #[inline(always)]
        fn where_positive(self, z: Self::Vector, value: Self::Vector) -> Self::Vector {
            // SAFETY: the token.
            unsafe {
                let zero = x86::_mm512_setzero_ps();
                let positive = x86::_mm512_cmp_ps_mask::<{ x86::_CMP_GT_OQ }>(z, zero);
                x86::_mm512_maskz_mov_ps(positive, value)
            }
        }
        #[inline(always)]
        fn dot(self, _: Bf16, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
            // SAFETY: `Bf16` exists only if the processor has the instructions. Only the bits
            // count: a vector of f32 holds the pairs.
            unsafe {
                let a = std::mem::transmute::<x86::__m512, x86::__m512bh>(a);
                let b = std::mem::transmute::<x86::__m512, x86::__m512bh>(b);
                x86::_mm512_dpbf16_ps(c, a, b)
            }
        }
        #[inline(always)]
        unsafe fn store_pairs(self, _: Bf16, at: *mut f32, value: Self::Vector) {
            // SAFETY: the caller's promise, and `Bf16`. Only the bits count: eight f32 hold the
            // pairs.
            unsafe {
                let pairs = x86::_mm512_cvtneps_pbh(value);
                at.cast::<x86::__m256bh>().write_unaligned(pairs);
            }
        }
        #[inline(always)]
        fn pairs_of_lanes(self, _: Bf16, a: Self::Vector, b: Self::Vector) -> Self::Vector {
            // SAFETY: `Bf16`, as in `dot`. The low half of the conversion is `a`, the high half is
            // `b`; the shuffle alternates their 16-bit lanes.
            unsafe {
                let both = std::mem::transmute::<x86::__m512bh, x86::__m512i>(
                    x86::_mm512_cvtne2ps_pbh(b, a),
                );
                let order = x86::_mm512_loadu_si512(IN_TURN.as_ptr().cast());
                x86::_mm512_castsi512_ps(x86::_mm512_permutexvar_epi16(order, both))
            }
        }
        #[inline(always)]
        fn outline_pairs<K: Kernel>(self, _: Bf16, kernel: K) {
            // SAFETY: the tokens exist only if the processor has the instructions.
            unsafe { run_avx512bf16(kernel) }
        }
    }
);

/// Alternates the 16-bit lanes of the first and second half of a vector.
#[cfg(target_arch = "x86_64")]
const IN_TURN: [u16; 32] = {
    let mut order = [0; 32];
    let mut lane = 0;
    while lane < 32 {
        order[lane] = lane as u16 / 2 + 16 * (lane as u16 % 2);
        lane += 1;
    }
    order
};

/// Alternates the lanes of two vectors: those of their first halves, and those of their second
/// halves. The second vector's lanes are numbered from 16 on.
#[cfg(target_arch = "x86_64")]
const HALVES_IN_TURN: [[u32; 16]; 2] = {
    let mut order = [[0; 16]; 2];
    let mut lane = 0;
    while lane < 32 {
        order[lane / 16][lane % 16] = lane as u32 / 2 + 16 * (lane as u32 % 2);
        lane += 1;
    }
    order
};

/// An AVX2 mask of the first lanes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn first_lanes(count: usize) -> x86::__m256i {
    let lanes: [i32; 8] = std::array::from_fn(|lane| if lane < count { -1 } else { 0 });
    // SAFETY: an array of eight i32 has the size of the vector, and every bit pattern is valid.
    unsafe { std::mem::transmute(lanes) }
}
