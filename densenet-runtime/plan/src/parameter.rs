//! The parameters of a plan, in the order in which dfdx visits a generated network's tensors.

use crate::{Block, Plan, StemKind};

/// What a tensor of the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A convolution's weight: maps out, maps in, height, width.
    ConvWeight,
    /// BN's scale, gamma.
    NormScale,
    /// BN's shift, beta.
    NormBias,
    /// BN's running mean; not trained.
    RunningMean,
    /// BN's running variance, unbiased; not trained.
    RunningVar,
    /// The classifier's weight: classes, features.
    LinearWeight,
    /// The classifier's bias.
    LinearBias,
}

impl Role {
    /// Whether the optimiser changes it.
    pub const fn is_trainable(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVar)
    }
}

/// One tensor of a network: a trainable parameter or a running statistic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Path of fields in the generated struct: `block1.layer1.norm1.scale`.
    pub field: String,
    /// Name in torchvision's checkpoints: `features.denseblock1.denselayer1.norm1.weight`.
    pub torchvision: String,
    /// What it is.
    pub role: Role,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Where it starts among the trainable parameters or among the running statistics,
    /// whichever it belongs to.
    pub offset: usize,
}

impl Parameter {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements; never so in a valid plan.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its place among the trainable parameters or the running statistics.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// Lists parameters in order, and gives each its offset.
#[derive(Default)]
struct List {
    parameters: Vec<Parameter>,
    trainable: usize,
    running: usize,
}

impl List {
    fn push(&mut self, field: String, torchvision: String, role: Role, shape: &[usize]) {
        let end = if role.is_trainable() {
            &mut self.trainable
        } else {
            &mut self.running
        };
        let parameter = Parameter {
            field,
            torchvision,
            role,
            shape: shape.to_vec(),
            offset: *end,
        };
        *end += parameter.len();
        self.parameters.push(parameter);
    }

    fn conv(&mut self, field: &str, torchvision: &str, out: usize, input: usize, kernel: usize) {
        self.push(
            format!("{field}.weight"),
            format!("{torchvision}.weight"),
            Role::ConvWeight,
            &[out, input, kernel, kernel],
        );
    }

    fn norm(&mut self, field: &str, torchvision: &str, maps: usize) {
        for (ours, theirs, role) in [
            ("scale", "weight", Role::NormScale),
            ("bias", "bias", Role::NormBias),
            ("running_mean", "running_mean", Role::RunningMean),
            ("running_var", "running_var", Role::RunningVar),
        ] {
            self.push(
                format!("{field}.{ours}"),
                format!("{torchvision}.{theirs}"),
                role,
                &[maps],
            );
        }
    }

    fn block(&mut self, number: usize, block: &Block) {
        for (index, layer) in block.iter().enumerate() {
            let field = format!("block{number}.layer{}", index + 1);
            let theirs = format!("features.denseblock{number}.denselayer{}", index + 1);
            match layer.bottleneck {
                Some(maps) => {
                    self.norm(
                        &format!("{field}.norm1"),
                        &format!("{theirs}.norm1"),
                        layer.input,
                    );
                    let conv1 = (format!("{field}.conv1"), format!("{theirs}.conv1"));
                    self.conv(&conv1.0, &conv1.1, maps, layer.input, 1);
                    self.norm(&format!("{field}.norm2"), &format!("{theirs}.norm2"), maps);
                    let conv2 = (format!("{field}.conv2"), format!("{theirs}.conv2"));
                    self.conv(&conv2.0, &conv2.1, layer.growth, maps, 3);
                }
                None => {
                    self.norm(
                        &format!("{field}.norm"),
                        &format!("{theirs}.norm1"),
                        layer.input,
                    );
                    let conv = (format!("{field}.conv"), format!("{theirs}.conv1"));
                    self.conv(&conv.0, &conv.1, layer.growth, layer.input, 3);
                }
            }
        }
    }
}

impl Plan {
    /// Every tensor of the network, trainable or running statistic, in the order in which dfdx
    /// visits the generated struct.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut list = List::default();
        let stem = self.stem();
        list.conv(
            "stem.conv",
            "features.conv0",
            stem.maps,
            stem.channels,
            stem.kernel(),
        );
        if stem.kind == StemKind::ImageNet {
            list.norm("stem.norm", "features.norm0", stem.maps);
        }
        for (index, block) in self.blocks().iter().enumerate() {
            let number = index + 1;
            list.block(number, block);
            if let Some(transition) = self.transitions().get(index) {
                let field = format!("transition{number}");
                let theirs = format!("features.transition{number}");
                list.norm(
                    &format!("{field}.norm"),
                    &format!("{theirs}.norm"),
                    transition.input,
                );
                let conv = (format!("{field}.conv"), format!("{theirs}.conv"));
                list.conv(&conv.0, &conv.1, transition.output, transition.input, 1);
            }
        }
        let features = self.features();
        // The fifth, however many blocks there are: torchvision's name.
        list.norm("norm", "features.norm5", features);
        list.push(
            "classifier.weight".into(),
            "classifier.weight".into(),
            Role::LinearWeight,
            &[self.classes(), features],
        );
        let bias = "classifier.bias".to_string();
        list.push(bias.clone(), bias, Role::LinearBias, &[self.classes()]);
        list.parameters
    }

    /// Number of running statistics: a mean and a variance for each channel of each BN.
    pub fn running_count(&self) -> usize {
        self.norm_channels() * 2
    }

    /// Channels of all BN layers together.
    pub(crate) fn norm_channels(&self) -> usize {
        let stem = match self.stem().kind {
            StemKind::ImageNet => self.stem().maps,
            StemKind::Cifar => 0,
        };
        let layers: usize = self
            .blocks()
            .iter()
            .flat_map(Block::iter)
            .map(|layer| layer.input + layer.bottleneck.unwrap_or(0))
            .sum();
        let transitions: usize = self.transitions().iter().map(|t| t.input).sum();
        stem + layers + transitions + self.features()
    }
}
