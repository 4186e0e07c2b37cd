//! The planes of a picture, filled scan by scan.

use std::iter;

use super::{
    Broken,
    block::{self, Band, DctBlock},
    header::{Frame, Process, Reader, Scan},
    huffman::{Bits, HuffmanTable},
    idct, room,
};
use densenet_cpu::Level;

/// The lowest known bit of a coefficient before its first scan.
const UNKNOWN: u32 = u32::MAX;

/// The samples of a component.
pub(super) struct Plane {
    /// Size of the picture in samples; padding up to whole blocks and MCUs is not shown.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Distance between rows of samples.
    pub(super) stride: usize,
    pub(super) samples: Vec<u8>,
    /// The coefficients of a progressive file, until it is complete.
    coefficients: Vec<DctBlock>,
    quantization: Option<[u16; 64]>,
    level: Level,
    /// The lowest known bit of each coefficient, in the order of the file.
    known: [u32; 64],
}

/// A picture that is being decoded.
pub(super) struct Decoding {
    pub(super) frame: Frame,
    pub(super) level: Level,
    pub(super) planes: Vec<Plane>,
}

impl Decoding {
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn new(frame: Frame) -> Result<Self, Broken> {
        let level = Level::detect();
        let (across, down) = frame.mcus();
        let planes = iter::zip(&frame.components, frame.sizes());
        let planes = planes.map(|(part, (width, height))| {
            let blocks = (across * part.h) * (down * part.v);
            Ok(Plane {
                width,
                height,
                stride: 8 * across * part.h,
                samples: room(64 * blocks, 0)?,
                coefficients: match frame.process {
                    Process::Sequential => Vec::new(),
                    Process::Progressive => room(blocks, [0; 64])?,
                },
                quantization: None,
                level,
                known: [UNKNOWN; 64],
            })
        });
        Ok(Self {
            planes: planes.collect::<Result<_, Broken>>()?,
            frame,
            level,
        })
    }

    /// Whether every bit of every coefficient is known.
    pub(super) fn is_complete(&self) -> bool {
        let mut known = self.planes.iter().flat_map(|plane| plane.known);
        known.all(|bit| bit == 0)
    }

    /// Adds the data of a scan.
    pub(super) fn take(&mut self, scan: &Scan, tables: &Reader) -> Result<(), Broken> {
        for part in &scan.parts {
            let plane = &mut self.planes[part.component];
            let quantization = self.frame.components[part.component].quantization;
            // The table of a component's first scan holds for all of its scans.
            let quantization = plane.quantization.or(tables.quantization[quantization]);
            plane.quantization = Some(quantization.ok_or(Broken::Tables)?);
            let (band, high, low) = match self.frame.process {
                Process::Sequential => (0..=63, 0, 0),
                Process::Progressive => (scan.band.clone(), scan.high, scan.low),
            };
            for known in &mut plane.known[band] {
                if *known != if high == 0 { UNKNOWN } else { high } {
                    return Err(Broken::Order);
                }
                *known = low;
            }
        }
        let dc = || scan.parts.iter().map(|part| tables.dc[part.dc].as_ref());
        let ac = || scan.parts.iter().map(|part| tables.ac[part.ac].as_ref());
        let mut predictors = [0; 4];
        let band = Band {
            first: *scan.band.start(),
            last: *scan.band.end(),
            low: scan.low,
        };
        match (self.frame.process, band.first, scan.high) {
            (Process::Sequential, ..) => {
                let (dc, ac) = (there(dc())?, there(ac())?);
                self.blocks(scan, tables.restart, |step| match step {
                    ScanItem::Restart => {
                        predictors = [0; 4];
                        Ok(())
                    }
                    ScanItem::Block {
                        bits,
                        part,
                        plane,
                        at: (x, y),
                    } => {
                        let mut block = [0; 64];
                        let predictor = &mut predictors[part];
                        let last =
                            block::sequential(bits, dc[part], ac[part], predictor, &mut block)?;
                        plane.show(&block, last, x, y);
                        Ok(())
                    }
                })
            }
            (Process::Progressive, 0, 0) => {
                let dc = there(dc())?;
                self.blocks(scan, tables.restart, |step| match step {
                    ScanItem::Restart => {
                        predictors = [0; 4];
                        Ok(())
                    }
                    ScanItem::Block {
                        bits,
                        part,
                        plane,
                        at,
                    } => {
                        let predictor = &mut predictors[part];
                        block::first_dc(bits, dc[part], band.low, predictor, plane.block(at))
                    }
                })
            }
            (Process::Progressive, 0, _) => self.blocks(scan, tables.restart, |step| match step {
                ScanItem::Restart => Ok(()),
                ScanItem::Block {
                    bits, plane, at, ..
                } => block::finer_dc(bits, band.low, plane.block(at)),
            }),
            (Process::Progressive, _, high) => {
                let ac = there(ac())?[0];
                let mut skip = 0;
                let decode = if high == 0 {
                    block::first_ac
                } else {
                    block::finer_ac
                };
                self.blocks(scan, tables.restart, |step| match step {
                    ScanItem::Restart => {
                        skip = 0;
                        Ok(())
                    }
                    ScanItem::Block {
                        bits, plane, at, ..
                    } => decode(bits, ac, band, &mut skip, plane.block(at)),
                })
            }
        }
    }

    /// Walks the blocks of a scan.
    #[inline(always)]
    fn blocks(
        &mut self,
        scan: &Scan,
        restart: usize,
        mut take: impl FnMut(ScanItem<'_, '_>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let mut bits = Bits::new(scan.data);
        // In a scan of one component an MCU is one block, and blocks outside the picture are left
        // out.
        let (across, down) = match *scan.parts {
            [part] => {
                let plane = &self.planes[part.component];
                (plane.width.div_ceil(8), plane.height.div_ceil(8))
            }
            _ => self.frame.mcus(),
        };
        let is_interleaved = scan.parts.len() > 1;
        let sides = scan
            .parts
            .iter()
            .map(|part| match self.frame.components[part.component] {
                part if is_interleaved => (part.h, part.v),
                _ => (1, 1),
            });
        let sides: Vec<(usize, usize)> = sides.collect();
        let (mut left, mut number) = (restart, 0);
        for row in 0..down {
            for column in 0..across {
                if restart > 0 && left == 0 {
                    bits.restart(number)?;
                    take(ScanItem::Restart)?;
                    number = (number + 1) % 8;
                    left = restart;
                }
                left = left.wrapping_sub(1);
                for (part, &(h, v)) in sides.iter().enumerate() {
                    let plane = &mut self.planes[scan.parts[part].component];
                    for y in row * v..(row + 1) * v {
                        for x in column * h..(column + 1) * h {
                            take(ScanItem::Block {
                                bits: &mut bits,
                                part,
                                plane,
                                at: (x, y),
                            })?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Turns the coefficients of a progressive file into samples.
    pub(super) fn finish(&mut self) {
        for plane in &mut self.planes {
            let across = plane.stride / 8;
            for (at, block) in std::mem::take(&mut plane.coefficients).iter().enumerate() {
                let last = if block[1..] == [0; 63] { 0 } else { 63 };
                plane.show(block, last, at % across, at / across);
            }
        }
    }
}

/// The tables that a scan needs.
fn there<'a>(
    tables: impl Iterator<Item = Option<&'a HuffmanTable>>,
) -> Result<Vec<&'a HuffmanTable>, Broken> {
    tables.collect::<Option<_>>().ok_or(Broken::Tables)
}

/// The next item of a scan.
enum ScanItem<'a, 'b> {
    /// A restart marker: predictions start again.
    Restart,
    /// A block.
    Block {
        bits: &'a mut Bits<'b>,
        /// The index of its component in the scan.
        part: usize,
        plane: &'a mut Plane,
        /// Its column and row, in blocks.
        at: (usize, usize),
    },
}

impl Plane {
    fn block(&mut self, (x, y): (usize, usize)) -> &mut DctBlock {
        &mut self.coefficients[y * (self.stride / 8) + x]
    }

    fn show(&mut self, block: &DctBlock, last: usize, x: usize, y: usize) {
        let Some(quantization) = &self.quantization else {
            return;
        };
        let from = 8 * (y * self.stride + x);
        idct::samples(
            self.level,
            block,
            last,
            quantization,
            &mut self.samples[from..],
            self.stride,
        );
    }
}

impl Frame {
    /// Columns and rows of MCUs in scans of several components.
    fn mcus(&self) -> (usize, usize) {
        (
            self.width.div_ceil(8 * self.most.0),
            self.height.div_ceil(8 * self.most.1),
        )
    }

    /// Width and height of each component.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.components.iter().map(|part| {
            (
                (self.width * part.h).div_ceil(self.most.0),
                (self.height * part.v).div_ceil(self.most.1),
            )
        })
    }

    /// The least number of blocks that must be coded.
    pub(super) fn least_blocks(&self) -> usize {
        let blocks = |(width, height): (usize, usize)| width.div_ceil(8) * height.div_ceil(8);
        self.sizes().map(blocks).sum()
    }
}
