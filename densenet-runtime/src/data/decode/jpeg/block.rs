//! From the bits of a scan to the coefficients of a block (T.81, annexes F and G).

use super::{
    Broken,
    huffman::{Bits, HuffmanTable},
};

/// The coefficients of 8x8 samples, row by row.
pub(super) type DctBlock = [i16; 64];

/// The index in a block of each coefficient, in the order of the file (zigzag).
pub(super) const NATURAL: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Decodes a whole block of a sequential file into zeros. Returns the index of the last coefficient
/// that is not zero.
pub(super) fn sequential(
    bits: &mut Bits,
    dc: &HuffmanTable,
    ac: &HuffmanTable,
    predictor: &mut i32,
    block: &mut DctBlock,
) -> Result<usize, Broken> {
    let size = bits.symbol(dc)?;
    *predictor = predictor.wrapping_add(bits.signed(size.into()));
    block[0] = *predictor as i16;
    let (mut at, mut last) = (1, 0);
    while at < 64 {
        let number = if let Some(coefficient) = bits.coefficient(ac) {
            at += usize::from(coefficient.zeros);
            coefficient.number
        } else {
            let symbol = bits.symbol(ac)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 {
                if run < 15 {
                    break;
                }
                at += 16;
                continue;
            }
            at += run;
            bits.signed(size) as i16
        };
        let place = NATURAL.get(at).ok_or(Broken::Data)?;
        block[usize::from(*place)] = number;
        last = at;
        at += 1;
    }
    bits.enough()?;
    Ok(last)
}

/// What a scan of a progressive file adds: coefficients `first..=last`, from bit `low` on.
#[derive(Clone, Copy)]
pub(super) struct Band {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) low: u32,
}

/// The upper bits of the first coefficient.
pub(super) fn first_dc(
    bits: &mut Bits,
    dc: &HuffmanTable,
    low: u32,
    predictor: &mut i32,
    block: &mut DctBlock,
) -> Result<(), Broken> {
    let size = bits.symbol(dc)?;
    *predictor = predictor.wrapping_add(bits.signed(size.into()));
    block[0] = predictor.wrapping_shl(low) as i16;
    bits.enough()
}

/// One more bit of the first coefficient.
pub(super) fn finer_dc(bits: &mut Bits, low: u32, block: &mut DctBlock) -> Result<(), Broken> {
    if bits.bit() {
        block[0] |= 1 << low;
    }
    bits.enough()
}

/// The upper bits of other coefficients. The next `skip` blocks have none.
// Runs and sizes are read as in `sequential`, but an end of a band counts blocks, and most symbols
// of a sequential file are read with their number at once: one loop for both would test for each.
pub(super) fn first_ac(
    bits: &mut Bits,
    ac: &HuffmanTable,
    band: Band,
    skip: &mut u32,
    block: &mut DctBlock,
) -> Result<(), Broken> {
    if *skip > 0 {
        *skip -= 1;
        return Ok(());
    }
    let mut at = band.first;
    while at <= band.last {
        let symbol = bits.symbol(ac)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run < 15 {
                *skip = (1 << run) - 1 + bits.plain(run as u32);
                break;
            }
            at += 16;
            continue;
        }
        at += run;
        let place = NATURAL[..=band.last].get(at).ok_or(Broken::Data)?;
        block[usize::from(*place)] = bits.signed(size).wrapping_shl(band.low) as i16;
        at += 1;
    }
    bits.enough()
}

/// One more bit of other coefficients, and those that first become nonzero with it.
pub(super) fn finer_ac(
    bits: &mut Bits,
    ac: &HuffmanTable,
    band: Band,
    skip: &mut u32,
    block: &mut DctBlock,
) -> Result<(), Broken> {
    let one = 1_i16.wrapping_shl(band.low);
    let mut at = band.first;
    while *skip == 0 && at <= band.last {
        let symbol = bits.symbol(ac)?;
        let (mut run, size) = (symbol >> 4, symbol & 15);
        let mut new = 0;
        match size {
            0 if run < 15 => {
                *skip = (1 << run) + bits.plain(run.into());
                break;
            }
            0 => {}
            1 => new = if bits.bit() { one } else { -one },
            _ => return Err(Broken::Data),
        }
        // Skips as many zeros as the run has, and refines the nonzero coefficients on the way.
        while at <= band.last {
            let coefficient = &mut block[usize::from(NATURAL[at])];
            if *coefficient != 0 {
                refine(bits, one, coefficient);
            } else if run == 0 {
                *coefficient = new;
                at += 1;
                break;
            } else {
                run -= 1;
            }
            at += 1;
        }
    }
    if *skip > 0 {
        for place in &NATURAL[at..=band.last] {
            let coefficient = &mut block[usize::from(*place)];
            if *coefficient != 0 {
                refine(bits, one, coefficient);
            }
        }
        *skip -= 1;
    }
    bits.enough()
}

fn refine(bits: &mut Bits, one: i16, coefficient: &mut i16) {
    if bits.bit() && *coefficient & one == 0 {
        *coefficient = coefficient.wrapping_add(one * coefficient.signum());
    }
}
