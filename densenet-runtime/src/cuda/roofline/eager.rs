//! The least traffic of eager PyTorch for the same network.

use crate::plan::{Plan, Precision, StemKind};

/// Bytes that torchvision's DenseNet moves in a training step of eager PyTorch, by operation.
///
/// Each operation is assumed to read each of its operands once and to write its result once;
/// everything else is assumed to stay in the caches. That is less than PyTorch moves: batch
/// normalisation passes its input twice each way unless cuDNN has a kernel for the shape that does
/// not, convolutions may copy to other layouts, and autocast copies weights; none of that is
/// counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Eager {
    /// `torch.cat` before each layer, and the sums of the gradients after it.
    pub concatenation: u64,
    /// Batch normalisation and ReLU.
    pub normalisation: u64,
    /// Convolutions.
    pub convolution: u64,
    /// Pools, classifier and loss.
    pub rest: u64,
    /// SGD with momentum and weight decay, in f32.
    pub descent: u64,
}

impl Eager {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.concatenation + self.normalisation + self.convolution + self.rest + self.descent
    }
}

/// Counts the elements that are moved.
#[derive(Default)]
struct Count {
    concatenation: u64,
    normalisation: u64,
    convolution: u64,
    rest: u64,
}

impl Count {
    /// BN and an in-place ReLU over this many values. Forward: BN reads and writes, ReLU reads and
    /// writes. Backward: ReLU reads the gradient and its result and writes; BN reads the gradient
    /// and its input and writes.
    fn norm_relu(&mut self, values: u64) {
        self.normalisation += (2 + 2 + 3 + 3) * values;
    }

    /// A convolution. Forward: reads the input, writes the output. Backward: the gradient of the
    /// output is read for each of the two gradients, the input for that of the weight, and the
    /// gradient of the input is written, if it is needed. The weight: read, read, its gradient
    /// written.
    fn convolution(&mut self, input: u64, output: u64, weight: u64, inner: bool) {
        self.convolution += (2 + u64::from(inner)) * input + 3 * output + 3 * weight;
    }

    /// The concatenation of a layer's input, unless it is one tensor: read and written. Backward,
    /// its gradient is a view, whose parts are added to the existing gradients: two reads and a
    /// write.
    fn concatenation(&mut self, values: u64, parts: usize) {
        if parts > 1 {
            self.concatenation += (2 + 3) * values;
        }
    }
}

/// The least traffic of a training step in eager PyTorch. In bf16 it is that of autocast.
pub fn eager(plan: &Plan, batch: usize, precision: Precision) -> Eager {
    let images = batch as u64;
    let mut count = Count::default();
    let stem = plan.stem();
    let (height, width) = stem.convolved_size();
    let convolved = images * (height * width * stem.maps) as u64;
    let pixels = images * (stem.channels * stem.height * stem.width) as u64;
    count.convolution(pixels, convolved, stem.weight_len() as u64, false);
    if stem.kind == StemKind::ImageNet {
        count.norm_relu(convolved);
        // The max pool and its backward pass, whose indices have eight bytes.
        let pooled = images * (plan.blocks()[0].pixels() * stem.maps) as u64;
        let indices = 2 * 8 * pooled / precision.bytes() as u64;
        count.rest += 2 * convolved + 2 * pooled + indices;
    }
    for (index, block) in plan.blocks().iter().enumerate() {
        let pixels = images * block.pixels() as u64;
        for (number, layer) in block.iter().enumerate() {
            let input = pixels * layer.input as u64;
            let output = pixels * layer.growth as u64;
            count.concatenation(input, number + 1);
            count.norm_relu(input);
            let weight = (9 * layer.growth) as u64;
            match layer.bottleneck {
                Some(maps) => {
                    let maps = maps as u64;
                    let narrow = pixels * maps;
                    count.convolution(input, narrow, maps * layer.input as u64, true);
                    count.norm_relu(narrow);
                    count.convolution(narrow, output, weight * maps, true);
                }
                None => count.convolution(input, output, weight * layer.input as u64, true),
            }
        }
        let output = pixels * block.output() as u64;
        count.concatenation(output, block.layers + 1);
        count.norm_relu(output);
        if let Some(transition) = plan.transitions().get(index) {
            let maps = pixels * transition.output as u64;
            let weight = (transition.input * transition.output) as u64;
            count.convolution(output, maps, weight, true);
            // The average pool and its backward pass.
            let pooled = images * (plan.blocks()[index + 1].pixels() * transition.output) as u64;
            count.rest += 2 * maps + 2 * pooled;
        } else {
            let features = images * plan.features() as u64;
            let weight = (plan.features() * plan.classes()) as u64;
            let logits = images * plan.classes() as u64;
            count.rest += 2 * output + 5 * features + 3 * weight + 7 * logits;
        }
    }
    let bytes = precision.bytes() as u64;
    Eager {
        concatenation: bytes * count.concatenation,
        normalisation: bytes * count.normalisation,
        convolution: bytes * count.convolution,
        rest: bytes * count.rest,
        // Parameters, momentum and gradients are read; the first two are written.
        descent: 4 * 5 * plan.parameter_count() as u64,
    }
}
