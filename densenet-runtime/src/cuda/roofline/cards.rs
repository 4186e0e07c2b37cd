//! The peak rates of cards.

/// A card's peak rates. No program reaches them, so a time that follows from them is a lower bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    /// Its name on command lines.
    pub name: &'static str,
    /// Bytes of memory a second.
    pub bandwidth: f64,
    /// Operations a second of the tensor cores in bf16 with f32 sums, without sparsity.
    pub bf16: f64,
    /// Operations a second in f32 outside the tensor cores.
    pub f32: f64,
}

const fn card(name: &'static str, terabytes: f64, bf16: f64, f32: f64) -> Card {
    Card {
        name,
        bandwidth: terabytes * 1e12,
        bf16: bf16 * 1e12,
        f32: f32 * 1e12,
    }
}

/// From NVIDIA's data sheets, tensor rates without sparsity: "H100 Tensor Core GPU" (SXM5 and
/// PCIe), "H200 Tensor Core GPU", "A100 Tensor Core GPU" (SXM4 with 80 and 40 GB), "HGX B200"
/// (an eighth of its eight), "L4 Tensor Core GPU"; for the GeForce cards the white papers of the
/// "Ada" and "GA102" architectures.
const CARDS: [Card; 9] = [
    card("h100", 3.35, 990.0, 67.0),
    card("h100-pcie", 2.0, 756.0, 51.0),
    card("h200", 4.8, 990.0, 67.0),
    card("a100", 2.0, 312.0, 19.5),
    card("a100-40gb", 1.555, 312.0, 19.5),
    card("b200", 8.0, 2250.0, 75.0),
    card("l4", 0.3, 121.0, 30.3),
    card("rtx4090", 1.008, 165.2, 82.6),
    card("rtx3090", 0.936, 71.0, 35.6),
];

/// The cards that are known by name.
pub fn cards() -> &'static [Card] {
    &CARDS
}
