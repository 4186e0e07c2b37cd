//! Huffman codes, and the bits coded with them.

use super::Broken;

/// Codes of up to this many bits, which nearly all are, take one look-up.
const AT_ONCE: u32 = 10;

/// A code and the number that follows it.
#[derive(Clone, Copy, Default)]
pub(super) struct Coefficient {
    pub(super) number: i16,
    /// Zeros before it.
    pub(super) zeros: u8,
    /// Bits of code and number together; zero if there is no entry.
    length: u8,
}

/// A Huffman table from a file.
#[derive(Clone)]
pub(super) struct HuffmanTable {
    /// By the next bits: a coefficient with the zeros before it, if code and number fit.
    whole: Box<[Coefficient; 1 << AT_ONCE]>,
    /// By the next bits: a code's length above its symbol; zero if the code is longer.
    short: [u16; 1 << AT_ONCE],
    /// One more than the largest code of each length, aligned to 16 bits.
    above: [u32; 17],
    /// For each length: the index of its first symbol, less its first code.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl HuffmanTable {
    /// `counts` has the number of codes of 1 to 16 bits; as many `symbols` follow.
    ///
    /// # Errors
    /// When there are more codes than fit. As in libjpeg, no code may be all ones.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, Broken> {
        let mut table = Self {
            whole: Box::new([Coefficient::default(); 1 << AT_ONCE]),
            short: [0; 1 << AT_ONCE],
            above: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut place) = (0_u32, 0_usize);
        for (length, &count) in (1_u32..).zip(counts) {
            table.offset[length as usize] = place as i32 - code as i32;
            for &symbol in symbols.iter().skip(place).take(count.into()) {
                if length <= AT_ONCE {
                    let spare = AT_ONCE - length;
                    let first = (code << spare) as usize;
                    let last = first + (1 << spare);
                    let entries = table.short.get_mut(first..last).ok_or(Broken::Tables)?;
                    entries.fill((length as u16) << 8 | u16::from(symbol));
                }
                code += 1;
            }
            place += usize::from(count);
            if count > 0 && code >= 1 << length {
                return Err(Broken::Tables);
            }
            table.above[length as usize] = code << (16 - length);
            code <<= 1;
        }
        table.find_coefficients();
        Ok(table)
    }

    fn find_coefficients(&mut self) {
        for ((bits, coefficient), short) in (0_u64..).zip(&mut *self.whole).zip(self.short) {
            let (length, symbol) = (u32::from(short >> 8), short as u8);
            let size = u32::from(symbol & 15);
            if length > 0 && size > 0 && length + size <= AT_ONCE {
                let mut number = Bits::new(&[]);
                number.buffer = bits << (64 - AT_ONCE + length);
                *coefficient = Coefficient {
                    number: number.signed(size) as i16,
                    zeros: symbol >> 4,
                    length: (length + size) as u8,
                };
            }
        }
    }

    /// Whether no symbol is above `most`.
    pub(super) fn is_below(&self, most: u8) -> bool {
        self.symbols.iter().all(|&symbol| symbol <= most)
    }
}

/// The bits of a scan up to the next marker. Past it the reader returns zeros, until
/// [`enough`](Self::enough) reports that there were too few.
pub(super) struct Bits<'a> {
    /// The bytes after those in the buffer.
    rest: &'a [u8],
    /// The next bits, from the highest down.
    buffer: u64,
    /// How many of them come from the file; negative when more were taken than there are.
    count: i32,
}

impl<'a> Bits<'a> {
    /// Reads entropy-coded data, which may have restart markers.
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self {
            rest: data,
            buffer: 0,
            count: 0,
        }
    }

    /// Makes at least 32 bits available, if the file has them.
    #[inline(always)]
    fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(&next) = self.rest.first_chunk::<4>() {
            let word = u32::from_be_bytes(next);
            // No byte is 0xff if no byte of the complement is zero.
            let inverted = !word;
            let has_ff = inverted.wrapping_sub(0x0101_0101) & !inverted & 0x8080_8080;
            if has_ff == 0 && self.count >= 0 {
                self.buffer |= u64::from(word) << (32 - self.count);
                self.count += 32;
                self.rest = &self.rest[4..];
                return;
            }
        }
        self.refill_bytewise();
    }

    #[cold]
    fn refill_bytewise(&mut self) {
        while (0..=56).contains(&self.count) {
            let byte = match *self.rest {
                [0xff, 0x00, ..] => {
                    self.rest = &self.rest[2..];
                    0xff
                }
                [] | [0xff, ..] => return,
                [byte, ..] => {
                    self.rest = &self.rest[1..];
                    byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    #[inline(always)]
    fn drop(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits as i32;
    }

    /// The next symbol; the 16 bits after it stay available.
    #[inline(always)]
    pub(super) fn symbol(&mut self, table: &HuffmanTable) -> Result<u8, Broken> {
        self.refill();
        let short = table.short[(self.buffer >> (64 - AT_ONCE)) as usize];
        if short != 0 {
            self.drop(u32::from(short >> 8));
            return Ok(short as u8);
        }
        self.long_symbol(table)
    }

    /// The next coefficient, if code and number are short.
    #[inline(always)]
    pub(super) fn coefficient(&mut self, table: &HuffmanTable) -> Option<Coefficient> {
        self.refill();
        let coefficient = table.whole[(self.buffer >> (64 - AT_ONCE)) as usize];
        if coefficient.length == 0 {
            return None;
        }
        self.drop(coefficient.length.into());
        Some(coefficient)
    }

    #[cold]
    fn long_symbol(&mut self, table: &HuffmanTable) -> Result<u8, Broken> {
        let next = (self.buffer >> 48) as u32;
        for length in AT_ONCE + 1..=16 {
            if next < table.above[length as usize] {
                let code = (next >> (16 - length)) as i32;
                let place = code + table.offset[length as usize];
                self.drop(length);
                let symbol = usize::try_from(place).ok();
                let symbol = symbol.and_then(|place| table.symbols.get(place));
                return symbol.copied().ok_or(Broken::Data);
            }
        }
        // Zeros past the end usually are a code, but need not be.
        self.enough()?;
        Err(Broken::Data)
    }

    /// An unsigned number of up to 16 bits after a symbol.
    #[inline(always)]
    pub(super) fn plain(&mut self, bits: u32) -> u32 {
        self.refill();
        if bits == 0 {
            return 0;
        }
        let number = (self.buffer >> (64 - bits)) as u32;
        self.drop(bits);
        number
    }

    /// A signed number after a symbol (T.81, figure F.12): values in the upper half stand for
    /// themselves, those in the lower half for negative numbers.
    #[inline(always)]
    pub(super) fn signed(&mut self, bits: u32) -> i32 {
        if bits == 0 {
            return 0;
        }
        let number = (self.buffer >> (64 - bits)) as i32;
        self.drop(bits);
        if number < 1 << (bits - 1) {
            number - (1 << bits) + 1
        } else {
            number
        }
    }

    #[inline(always)]
    pub(super) fn bit(&mut self) -> bool {
        self.plain(1) == 1
    }

    /// # Errors
    /// When more bits were read than there are.
    #[inline(always)]
    pub(super) fn enough(&self) -> Result<(), Broken> {
        match self.count < 0 {
            true => Err(Broken::Ended),
            false => Ok(()),
        }
    }

    /// Continues after the restart marker of this number, from 0 to 7, skipping what is left before
    /// it.
    pub(super) fn restart(&mut self, number: u8) -> Result<(), Broken> {
        (self.buffer, self.count) = (0, 0);
        while let Some(at) = self.rest.iter().position(|&byte| byte == 0xff) {
            match self.rest[at + 1..] {
                [0x00, ..] => self.rest = &self.rest[at + 2..],
                [0xff, ..] => self.rest = &self.rest[at + 1..],
                [marker, ..] if marker == 0xd0 + number => {
                    self.rest = &self.rest[at + 2..];
                    return Ok(());
                }
                [_, ..] => return Err(Broken::Restart),
                [] => return Err(Broken::Ended),
            }
        }
        Err(Broken::Ended)
    }
}
