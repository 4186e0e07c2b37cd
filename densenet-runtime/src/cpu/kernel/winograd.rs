//! Winograd's F(2x2, 3x3): 16 products for 2x2 pixels of a 3x3 convolution where the plain way
//! has 36 (Lavin and Gray, arXiv 1509.09308).
//!
//! For a 4x4 patch d of the input and a kernel g, the 2x2 outputs are
//! `A^T ((G g G^T) . (B^T d B)) A`, summed over channels in the middle; so each of the 16 places
//! of a transformed patch is a matrix product over channels. From the outputs' gradient y, the
//! kernel's is `G^T ((B^T d B) . (A y A^T)) G`, summed over patches: again a product for each
//! place. The input's gradient is a convolution of y with the turned kernel. All entries of A and
//! B are 0, 1 or -1, so rounding is as good as the plain way's.

use super::simd::{Baseline, Kernel, Simd};

/// Places of a transformed patch.
pub(crate) const PLACES: usize = 16;

/// A function that applies a linear map of `$n` numbers to `$m` to the rows and to the columns of
/// a small matrix. (Written out: closures in between would not always be compiled for the
/// level.)
macro_rules! both {
    ($(#[$doc:meta])* $name:ident, $n:literal to $m:literal, $line:expr) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name<S: Simd>(
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
    /// `G^T m G`: the gradient of kernels from that of their transform.
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
pub(crate) fn of_kernel(g: &[f32; 9]) -> [f32; PLACES] {
    let g = std::array::from_fn(|row| std::array::from_fn(|column| [g[3 * row + column]; 4]));
    let places = of_kernels(Baseline, g);
    std::array::from_fn(|place| places[place / 4][place % 4][0])
}

/// How transformed patches lie in memory: place q of patch p starts at
/// `q * apart + p * stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub stride: usize,
    pub apart: usize,
}

impl Layout {
    /// Of `patches` patches of some channels, their rows apart enough that they do not compete
    /// for the same lines of the cache.
    pub fn new(patches: usize, channels: usize) -> Self {
        let stride = channels.next_multiple_of(16) + 16;
        Self {
            stride,
            apart: patches * stride,
        }
    }

    /// Elements of all places.
    pub fn len(self) -> usize {
        PLACES * self.apart
    }

    /// Where the last place of the last of some patches ends.
    fn end(self, patches: usize, width: usize) -> usize {
        (PLACES - 1) * self.apart + (patches - 1) * self.stride + width
    }
}

/// A row of patches: four rows of `2 * columns + 2` pixels, each of `stride` elements; patch p
/// starts at pixel `2 p`.
#[derive(Clone, Copy)]
pub(crate) struct Strip<'a> {
    pub values: &'a [f32],
    pub columns: usize,
    pub stride: usize,
}

impl Strip<'_> {
    /// Pixels of one of the four rows.
    pub fn pitch(columns: usize) -> usize {
        2 * columns + 2
    }

    fn check(&self, channels: usize, lanes: usize) -> usize {
        let width = channels.next_multiple_of(lanes);
        assert!(width <= self.stride);
        assert!(4 * Self::pitch(self.columns) * self.stride <= self.values.len());
        width
    }

    /// Transforms the patches, as a convolution's input.
    ///
    /// # Panics
    /// If a slice is shorter than the shapes ask for.
    #[inline(always)]
    pub fn transform<S: Simd>(self, simd: S, channels: usize, into: &mut [f32], layout: Layout) {
        let width = self.check(channels, S::LANES);
        assert!(layout.end(self.columns, width) <= into.len());
        simd.outline(Forth::<false> {
            strip: self,
            width,
            into: into.as_mut_ptr(),
            layout,
        });
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
        let width = self.check(channels, S::LANES);
        assert!(layout.end(self.columns, width) <= into.len());
        simd.outline(Forth::<true> {
            strip: self,
            width,
            into: into.as_mut_ptr(),
            layout,
        });
    }
}

/// A strip on its way to places, its bounds checked.
struct Forth<'a, const OUTPUTS: bool> {
    strip: Strip<'a>,
    width: usize,
    into: *mut f32,
    layout: Layout,
}

impl<const OUTPUTS: bool> Kernel for Forth<'_, OUTPUTS> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Strip {
            values,
            columns,
            stride,
        } = self.strip;
        let pitch = Strip::pitch(columns);
        for column in 0..columns {
            for c in (0..self.width).step_by(S::LANES) {
                // SAFETY: `Strip` has checked that four rows of `pitch` pixels can be read, and
                // that every place of `columns` patches can be written.
                unsafe {
                    let at = |row: usize, x: usize| {
                        let pixel = row * pitch + 2 * column + x;
                        simd.load(values.as_ptr().add(pixel * stride + c))
                    };
                    let places = if OUTPUTS {
                        of_outputs(simd, [[at(1, 1), at(1, 2)], [at(2, 1), at(2, 2)]])
                    } else {
                        let d = std::array::from_fn(|row| std::array::from_fn(|x| at(row, x)));
                        of_patch(simd, d)
                    };
                    let into = self.into.add(column * self.layout.stride + c);
                    for (row, places) in places.into_iter().enumerate() {
                        for (x, value) in places.into_iter().enumerate() {
                            simd.store(into.add((4 * row + x) * self.layout.apart), value);
                        }
                    }
                }
            }
        }
    }
}

/// Transforms a row of patches back into pixels: `rows` (1 or 2) rows of `pixels` pixels, each of
/// `width` elements, one behind the other. Pixels of a patch beyond them are left out.
///
/// # Panics
/// If a slice is shorter than the shapes ask for.
#[inline(always)]
pub(crate) fn transform_back<S: Simd>(
    simd: S,
    from: &[f32],
    layout: Layout,
    width: usize,
    (rows, pixels): (usize, usize),
    into: &mut [f32],
) {
    let columns = pixels.div_ceil(2);
    assert!(width.is_multiple_of(S::LANES) && (1..=2).contains(&rows));
    assert!(layout.end(columns, width) <= from.len());
    assert!(rows * pixels * width <= into.len());
    simd.outline(Back {
        from: from.as_ptr(),
        layout,
        width,
        rows,
        pixels,
        into: into.as_mut_ptr(),
    });
}

/// Places on their way to pixels, their bounds checked.
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
