//! Elements of a product's operands: a value, or a pair of bfloat16.

use super::simd::{Bf16, Simd};

/// The type of a product's elements.
pub trait Element: Copy {
    /// How many values an element holds.
    const VALUES: usize;

    /// `a * b + c`, element by element.
    fn multiply_add<S: Simd>(self, simd: S, a: S::Vector, b: S::Vector, c: S::Vector) -> S::Vector;
    /// Writes a vector of values as `LANES / VALUES` elements.
    ///
    /// # Safety
    /// `at` is valid for a write of that many elements.
    unsafe fn store<S: Simd>(self, simd: S, at: *mut f32, values: S::Vector);
}

/// A single value.
#[derive(Clone, Copy)]
pub struct Single;

impl Element for Single {
    const VALUES: usize = 1;

    #[inline(always)]
    fn multiply_add<S: Simd>(self, simd: S, a: S::Vector, b: S::Vector, c: S::Vector) -> S::Vector {
        simd.fma(a, b, c)
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(self, simd: S, at: *mut f32, values: S::Vector) {
        // SAFETY: the caller's promise.
        unsafe { simd.store(at, values) }
    }
}

/// A pair of bfloat16.
impl Element for Bf16 {
    const VALUES: usize = 2;

    #[inline(always)]
    fn multiply_add<S: Simd>(self, simd: S, a: S::Vector, b: S::Vector, c: S::Vector) -> S::Vector {
        simd.dot(self, a, b, c)
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(self, simd: S, at: *mut f32, values: S::Vector) {
        // SAFETY: the caller's promise.
        unsafe { simd.store_pairs(self, at, values) }
    }
}
