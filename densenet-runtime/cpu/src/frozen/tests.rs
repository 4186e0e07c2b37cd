//! Products with shapes that a frozen network never has.

use super::memory::Shared;
use super::product::{Contraction, Out, Right, Start, multiply};
use crate::Level;
use crate::kernel::product::{Form, Panels, Rows};
use crate::kernel::simd::{Kernel, Simd};

/// A product whose shapes match its short slices only if the arithmetic wraps.
struct Wrapping {
    rows: usize,
    stride: usize,
    tap: usize,
    out_stride: usize,
}

impl Kernel for Wrapping {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (values, mut out) = ([1.0; 64], [0.0; 64]);
        let panels = Panels {
            depth: 1,
            columns: 1,
            form: Form::Plain,
        };
        let rows = Rows {
            values: &values,
            stride: self.stride,
            count: self.rows,
        };
        let depth = Contraction {
            taps: &[self.tap],
            channels: 1,
            first: 0,
        };
        let right = Right {
            panels,
            values: &values,
        };
        let out = Out {
            values: Shared::new(&mut out),
            at: 0,
            stride: self.out_stride,
            relu: false,
        };
        // SAFETY: there is no other thread.
        unsafe { multiply(simd, rows, depth, right, 0..1, out, Start::Zero) };
    }
}

#[test]
fn shapes_that_wrap_are_refused() {
    for (rows, stride, tap, out_stride) in [
        ((1 << 63) + 1, 2, 0, 0),
        (3, 1 << 63, 0, 1),
        (1, 1, usize::MAX, 1),
        (3, 1, 0, 1 << 63),
    ] {
        let run = || {
            Level::detect().run(Wrapping {
                rows,
                stride,
                tap,
                out_stride,
            });
        };
        assert!(
            std::panic::catch_unwind(run).is_err(),
            "{rows} {stride} {tap}"
        );
    }
}
