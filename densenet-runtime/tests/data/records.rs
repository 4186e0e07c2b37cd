//! Golden files of records, compressed.

use std::{fs, io::Read};

use flate2::read::ZlibDecoder;

use crate::golden;

pub struct Records {
    bytes: Vec<u8>,
    at: usize,
}

impl Records {
    pub fn open(name: &str) -> Self {
        let mut bytes = Vec::new();
        let mut file = ZlibDecoder::new(fs::File::open(golden(name)).unwrap());
        file.read_to_end(&mut bytes).unwrap();
        Self { bytes, at: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn number(&mut self) -> u32 {
        let bytes = self.bytes[self.at..].first_chunk().unwrap();
        self.at += 4;
        u32::from_le_bytes(*bytes)
    }

    /// Bytes after their length.
    pub fn part(&mut self) -> Vec<u8> {
        let length = self.number() as usize;
        self.at += length;
        self.bytes[self.at - length..self.at].to_vec()
    }

    pub fn text(&mut self) -> String {
        String::from_utf8(self.part()).unwrap()
    }
}
