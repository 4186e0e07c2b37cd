//! Winograd's F(2x2, 3x3): 16 products for 2x2 pixels of a 3x3 convolution, where a direct
//! convolution needs 36 (Lavin and Gray, arXiv 1509.09308).
//!
//! For a 4x4 patch d of the input and a kernel g, the 2x2 outputs are `A^T ((G g G^T) . (B^T d B))
//! A`, summed over channels before the outer transform. So each of the 16 places of a transformed
//! patch is a matrix product over channels. The gradient of the kernel is `G^T ((B^T d B) . (A y
//! A^T)) G`, where y is the gradient of the outputs, summed over patches: again a product for each
//! place. The gradient of the input is a convolution of y with the kernel turned by 180 degrees.
//! All entries of A and B are 0, 1 or -1, so rounding is as good as that of a direct convolution.

use super::bounds::span;
use super::product::Rows;
use super::simd::{Baseline, Bf16, Kernel, Simd};

/// The places of a transformed patch.
pub const PLACES: usize = 16;

/// Elements in a cache line.
const LINE: usize = 16;

/// Defines a function that applies a linear map of `$n` numbers to `$m` to the rows and to the
/// columns of a small matrix. (It is written out, because closures in between are not always
/// compiled for the level.)
macro_rules! both {
    ($(#[$doc:meta])* $name:ident, $n:literal to $m:literal, $line:expr) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<S: Simd>(
            simd: S,
            x: [[S::Vector; $n]; $n],
        ) -> [[S::Vector; $m]; $m] {
            let mut rows = [[simd.zero(); $m]; $n];
            for row in 0..$n {
                rows[row] = $line(simd, x[row]);
            }
            let mut result = [[simd.zero(); $m]; $m];
            for column in 0..$m {
                let mut line = [simd.zero(); $n];
                for row in 0..$n {
                    line[row] = rows[row][column];
                }
                let line = $line(simd, line);
                for row in 0..$m {
                    result[row][column] = line[row];
                }
            }
            result
        }
    };
}

both!(
    /// `G g G^T` of kernels.
    of_kernels, 3 to 4, g
);
both!(
    /// `G^T m G`: the gradient of kernels, from the gradient of their transform.
    to_kernels, 4 to 3, g_transposed
);
both!(
    /// `B^T d B` of a patch.
    of_patch, 4 to 4, b_transposed
);
both!(
    /// `A y A^T` of the outputs' gradient.
    of_outputs, 2 to 4, a
);
both!(
    /// `A^T m A`: the outputs.
    to_outputs, 4 to 2, a_transposed
);

#[inline(always)]
fn half<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    // SAFETY: a reference is valid for a read.
    let half = unsafe { simd.splat(&0.5) };
    simd.fma(half, x, simd.zero())
}

#[inline(always)]
fn g<S: Simd>(simd: S, [a, b, c]: [S::Vector; 3]) -> [S::Vector; 4] {
    let (ends, middle) = (half(simd, simd.add(a, c)), half(simd, b));
    [a, simd.add(ends, middle), simd.sub(ends, middle), c]
}

#[inline(always)]
fn g_transposed<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 3] {
    let even = half(simd, simd.add(b, c));
    let odd = half(simd, simd.sub(b, c));
    [simd.add(a, even), odd, simd.add(even, d)]
}

#[inline(always)]
fn b_transposed<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 4] {
    [
        simd.sub(a, c),
        simd.add(b, c),
        simd.sub(c, b),
        simd.sub(b, d),
    ]
}

#[inline(always)]
fn a<S: Simd>(simd: S, [a, b]: [S::Vector; 2]) -> [S::Vector; 4] {
    [a, simd.add(a, b), simd.sub(a, b), simd.sub(simd.zero(), b)]
}

#[inline(always)]
fn a_transposed<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 2] {
    [simd.add(simd.add(a, b), c), simd.sub(simd.sub(b, c), d)]
}

/// `G g G^T` of one kernel, by rows.
pub fn of_kernel(g: &[f32; 9]) -> [f32; PLACES] {
    let g = std::array::from_fn(|row| std::array::from_fn(|column| [g[3 * row + column]; 4]));
    let places = of_kernels(Baseline, g);
    std::array::from_fn(|place| places[place / 4][place % 4][0])
}

/// What a pair of bfloat16 holds in transformed patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Two neighbouring channels; a product sums over channels.
    Channels(Bf16),
    /// Two neighbouring patches; a weight's gradient sums over patches. If the last patch of a row
    /// is alone, zeros fill its pair.
    Patches(Bf16),
}

/// The memory layout of transformed patches: place q of patch (or pair) p starts at `q * apart + p
/// * stride`. A length that cannot be counted is `usize::MAX`.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pairs: Option<Pairs>,
    /// Elements from one patch, or pair of patches, to the next.
    stride: usize,
    /// Patches, or pairs of patches, in a row.
    columns: usize,
    /// Patches, or pairs of patches.
    count: usize,
    /// Elements from one place to the next: an odd number of cache lines, so that the places of a
    /// patch do not compete for the same lines.
    apart: usize,
}

impl Layout {
    /// The layout of `rows` rows of `columns` patches of some channels.
    pub fn new(rows: usize, columns: usize, channels: usize, pairs: Option<Pairs>) -> Self {
        let elements = match pairs {
            Some(Pairs::Channels(_)) => channels.div_ceil(2),
            Some(Pairs::Patches(_)) | None => channels,
        };
        let whole = elements.div_ceil(LINE).saturating_mul(LINE);
        Self::with_stride(rows, columns, whole.saturating_add(LINE), pairs)
    }

    /// The layout of products: `rows` rows of `columns` patches, each of `width` elements.
    pub fn of_products(rows: usize, columns: usize, width: usize) -> Self {
        Self::with_stride(rows, columns, width, None)
    }

    fn with_stride(rows: usize, columns: usize, stride: usize, pairs: Option<Pairs>) -> Self {
        let columns = match pairs {
            Some(Pairs::Patches(_)) => columns.div_ceil(2),
            Some(Pairs::Channels(_)) | None => columns,
        };
        let count = rows.saturating_mul(columns);
        let lines = count.saturating_mul(stride).div_ceil(LINE);
        Self {
            pairs,
            stride,
            columns,
            count,
            apart: (lines | 1).saturating_mul(LINE),
        }
    }

    /// The number of elements of all places.
    pub(crate) fn len(self) -> usize {
        PLACES.saturating_mul(self.apart)
    }

    /// Where a place starts.
    pub fn place(self, place: usize) -> usize {
        place * self.apart
    }

    /// Where a row of patches starts in its first place.
    pub fn row(self, row: usize) -> usize {
        row * self.columns * self.stride
    }

    /// The patches, or pairs of patches, of a place as an operand.
    pub fn rows(self, values: &[f32], place: usize) -> Rows<'_> {
        Rows {
            values: &values[self.place(place)..],
            stride: match self.pairs {
                Some(Pairs::Channels(_)) => 2 * self.stride,
                Some(Pairs::Patches(_)) | None => self.stride,
            },
            count: self.count,
        }
    }

    /// Where a row of patches ends in its last place, from its start in its first place.
    fn end(self, width: usize) -> usize {
        span(PLACES, self.apart, span(self.columns, self.stride, width))
    }
}

/// A row of patches: four rows of `2 * columns + 2` pixels, each of `stride` elements. Patch p
/// starts at pixel `2 p`. The rows are a ring: the top row is row `first` in memory.
#[derive(Clone, Copy)]
pub struct Strip<'a> {
    pub values: &'a [f32],
    pub columns: usize,
    pub stride: usize,
    pub first: usize,
}

impl Strip<'_> {
    /// Pixels of one of the four rows.
    pub fn pitch(columns: usize) -> usize {
        columns.saturating_mul(2).saturating_add(2)
    }

    /// Transforms the patches, as a convolution's input.
    ///
    /// # Panics
    /// If a slice is shorter than the shapes require, or `layout` has a different number of
    /// columns.
    #[inline(always)]
    pub fn transform<S: Simd>(self, simd: S, channels: usize, into: &mut [f32], layout: Layout) {
        self.run::<S, false>(simd, channels, into, layout);
    }

    /// Transforms the middle 2x2 pixels of the patches, as the gradient of a convolution's
    /// outputs.
    ///
    /// # Panics
    /// As [`Strip::transform`].
    #[inline(always)]
    pub fn transform_outputs<S: Simd>(
        self,
        simd: S,
        channels: usize,
        into: &mut [f32],
        layout: Layout,
    ) {
        self.run::<S, true>(simd, channels, into, layout);
    }

    #[inline(always)]
    fn run<S: Simd, const OUTPUTS: bool>(
        self,
        simd: S,
        channels: usize,
        into: &mut [f32],
        layout: Layout,
    ) {
        let width = channels.div_ceil(S::LANES).saturating_mul(S::LANES);
        assert!(width <= self.stride);
        let line = Self::pitch(self.columns).saturating_mul(self.stride);
        assert!(line.saturating_mul(4) <= self.values.len());
        let (columns, elements) = match layout.pairs {
            None => (self.columns, width),
            Some(Pairs::Channels(_)) => (self.columns, width / 2),
            Some(Pairs::Patches(_)) => (self.columns.div_ceil(2), width),
        };
        assert!(layout.columns == columns && elements <= layout.stride);
        assert!(layout.end(elements) <= into.len());
        let forth = Forth::<OUTPUTS> {
            strip: self,
            width,
            into: into.as_mut_ptr(),
            layout,
        };
        match layout.pairs {
            None => simd.outline(forth),
            Some(Pairs::Channels(proof) | Pairs::Patches(proof)) => {
                simd.outline_pairs(proof, forth);
            }
        }
    }
}

/// A strip to be transformed, with its bounds checked.
struct Forth<'a, const OUTPUTS: bool> {
    strip: Strip<'a>,
    width: usize,
    into: *mut f32,
    layout: Layout,
}

impl<const OUTPUTS: bool> Kernel for Forth<'_, OUTPUTS> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Layout {
            pairs,
            stride,
            apart,
            ..
        } = self.layout;
        let columns = self.strip.columns;
        // SAFETY: `Strip::run` has checked that the places of every patch, or pair of patches, can
        // be written; each call is for patches of the strip and channels below `width`.
        unsafe {
            match pairs {
                None => {
                    for column in 0..columns {
                        for c in (0..self.width).step_by(S::LANES) {
                            let into = self.into.add(column * stride + c);
                            each(self.places(simd, column, c), |place, value| {
                                simd.store(into.add(place * apart), value);
                            });
                        }
                    }
                }
                Some(Pairs::Channels(proof)) => {
                    for column in 0..columns {
                        for c in (0..self.width).step_by(S::LANES) {
                            let into = self.into.add(column * stride + c / 2);
                            each(self.places(simd, column, c), |place, value| {
                                simd.store_pairs(proof, into.add(place * apart), value);
                            });
                        }
                    }
                }
                Some(Pairs::Patches(proof)) => {
                    for column in (0..columns).step_by(2) {
                        for c in (0..self.width).step_by(S::LANES) {
                            let into = self.into.add(column / 2 * stride + c);
                            let first = self.places(simd, column, c);
                            let second = if column + 1 < columns {
                                self.places(simd, column + 1, c)
                            } else {
                                [[simd.zero(); 4]; 4]
                            };
                            for row in 0..4 {
                                for x in 0..4 {
                                    let (first, second) = (first[row][x], second[row][x]);
                                    let pair = simd.pairs_of_lanes(proof, first, second);
                                    simd.store(into.add((4 * row + x) * apart), pair);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Passes each place and its vector to `store`.
#[inline(always)]
fn each<V>(places: [[V; 4]; 4], mut store: impl FnMut(usize, V)) {
    for (row, places) in places.into_iter().enumerate() {
        for (x, value) in places.into_iter().enumerate() {
            store(4 * row + x, value);
        }
    }
}

impl<const OUTPUTS: bool> Forth<'_, OUTPUTS> {
    /// The places of a patch, for the channels from `c` on.
    ///
    /// # Safety
    /// The patch is one of the strip's, and the channels are below `width`.
    #[inline(always)]
    unsafe fn places<S: Simd>(&self, simd: S, column: usize, c: usize) -> [[S::Vector; 4]; 4] {
        let Strip {
            values,
            columns,
            stride,
            first,
        } = self.strip;
        let line = Strip::pitch(columns) * stride;
        let from = values[2 * column * stride + c..].as_ptr();
        let mut d = [[simd.zero(); 4]; 4];
        let inside = if OUTPUTS { 1..3 } else { 0..4 };
        for row in inside.clone() {
            for x in inside.clone() {
                let at = (first + row) % 4 * line + x * stride;
                // SAFETY: four lines of pixels can be read, as `Strip::run` has checked.
                d[row][x] = unsafe { simd.load(from.add(at)) };
            }
        }
        if OUTPUTS {
            of_outputs(simd, [[d[1][1], d[1][2]], [d[2][1], d[2][2]]])
        } else {
            of_patch(simd, d)
        }
    }
}

/// Transforms a row of patches back into pixels: `rows` (1 or 2) rows of `pixels` pixels, each of
/// `width` elements, one row after another. Pixels of a patch beyond these are left out.
///
/// # Panics
/// If a slice is shorter than the shapes require.
#[inline(always)]
pub fn transform_back<S: Simd>(
    simd: S,
    from: &[f32],
    layout: Layout,
    width: usize,
    (rows, pixels): (usize, usize),
    into: &mut [f32],
) {
    assert!(width.is_multiple_of(S::LANES) && (1..=2).contains(&rows));
    assert!(layout.columns == pixels.div_ceil(2));
    assert!(layout.end(width) <= from.len());
    assert!(span(rows.saturating_mul(pixels), width, width) <= into.len());
    simd.outline(Back {
        from: from.as_ptr(),
        layout,
        width,
        rows,
        pixels,
        into: into.as_mut_ptr(),
    });
}

/// Places to be transformed back, with their bounds checked.
struct Back {
    from: *const f32,
    layout: Layout,
    width: usize,
    rows: usize,
    pixels: usize,
    into: *mut f32,
}

impl Kernel for Back {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for column in 0..self.pixels.div_ceil(2) {
            for c in (0..self.width).step_by(S::LANES) {
                // SAFETY: `transform_back` has checked that every place of the patches can be
                // read, and that `rows` rows of `pixels` pixels can be written.
                unsafe {
                    let from = self.from.add(column * self.layout.stride + c);
                    let m = std::array::from_fn(|row| {
                        std::array::from_fn(|x| {
                            simd.load(from.add((4 * row + x) * self.layout.apart))
                        })
                    });
                    let outputs = to_outputs(simd, m);
                    for (row, outputs) in outputs.into_iter().enumerate().take(self.rows) {
                        for (x, value) in outputs.into_iter().enumerate() {
                            let x = 2 * column + x;
                            if x < self.pixels {
                                let pixel = row * self.pixels + x;
                                simd.store(self.into.add(pixel * self.width + c), value);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Level;
    use super::*;

    /// Strips and products whose shapes match their short slices only if the arithmetic wraps.
    struct Wrapping {
        columns: usize,
        stride: usize,
        back: bool,
    }

    impl Kernel for Wrapping {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let (values, mut into) = ([1.0; 4096], [0.0; 4096]);
            let Self {
                columns, stride, ..
            } = self;
            if self.back {
                let layout = Layout::of_products(1, columns, stride);
                let pixels = columns.saturating_mul(2);
                transform_back(simd, &values, layout, stride, (1, pixels), &mut into);
            } else {
                let strip = Strip {
                    values: &values,
                    columns,
                    stride,
                    first: 0,
                };
                let layout = Layout::new(1, columns, stride, None);
                strip.transform(simd, 1, &mut into, layout);
            }
        }
    }

    #[test]
    fn shapes_that_wrap_are_refused() {
        for (columns, stride) in [
            ((1 << 61) - 1, 16),
            (1 << 60, 16),
            (1, 1 << 60),
            (1, 1 << 62),
            (usize::MAX, 16),
        ] {
            for back in [false, true] {
                let run = || {
                    Level::detect().run(Wrapping {
                        columns,
                        stride,
                        back,
                    });
                };
                assert!(
                    std::panic::catch_unwind(run).is_err(),
                    "{columns} {stride} {back}"
                );
            }
        }
    }
}
